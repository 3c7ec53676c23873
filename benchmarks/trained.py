"""What runs of `train` came to: their epochs, and how they do on test data, as one results file.

    python -m benchmarks.trained RUN [RUN ...] --data TEXT [--note TEXT] [--test BETON]
        [--views 1|5|10|all] [--out benchmarks/results/train-NAME.json]

Of each run: which recipe with which of its values changed, parameters, machine and versions, every
epoch's losses and errors, how long it took; and `train eval` on --test.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.report import tell
from train.recipe import recipe_names
from train.report.gather import Run, gather
from train.report.recipe_values import changed

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
OF_AN_EPOCH = (
    "epoch",
    "step",
    "loss",
    "top1_error",
    "val_loss",
    "val_top1_error",
    "val_top5_error",
    "learning_rate",
    "images_per_s",
)


def judged(folder: Path, test: Path, views: str) -> dict[str, Any]:
    program = str(Path(sys.executable).parent / "train")
    command = [program, "eval", str(folder), "--beton", str(test), "--views", views, "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return {"samples": found["samples"], "views": found["views"]}


def summary(run: Run) -> dict[str, Any]:
    start, recipe = run.starts[-1], run.checkpoint.recipe
    return {
        "recipe": recipe.name,
        "changed": changed(run) if recipe.name in recipe_names() else dataclasses.asdict(recipe),
        "network": recipe.network,
        "parameters": sum(
            values.numel()
            for name, values in run.checkpoint.network.items()
            if not name.endswith(BUFFERS)
        ),
        "samples": start.train.card["samples"],
        "classes": start.train.card["classes"],
        "steps": run.checkpoint.step,
        "of epochs": recipe.epochs,
        "device": start.device,
        "cpu": start.cpu,
        "threads": start.threads,
        "seconds": round(run.seconds),
        "epochs": [
            {name: round(row[name], 6) for name in OF_AN_EPOCH if name in row} for row in run.epochs
        ],
    }


def told(runs: Sequence[Path], data: str, test: Path | None, views: str) -> dict[str, Any]:
    """The results file's content; data: what the pictures are, in words."""
    report: dict[str, Any] = {"machine": machine(), "data": data, "runs": {}}
    for folder in runs:
        found = summary(*gather([folder]))
        if test:
            found["test"] = judged(folder, test, views)
        report["runs"][folder.name] = found
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="what the pictures are, in words")
    parser.add_argument("--note", help="what a reader of the figures has to know")
    parser.add_argument("--test", type=Path)
    parser.add_argument("--views", default="1")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = told(arguments.runs, arguments.data, arguments.test, arguments.views)
    if arguments.note:
        report["note"] = arguments.note
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
