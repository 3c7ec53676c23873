"""What each choice of a recipe earns: runs of the recipe as it is, and with one choice changed.

    python -m benchmarks.ablate BETON WORK --recipe demo [--set width=0.25 epochs=8]
        --change label_smoothing=0.1 nesterov=true network=paper,init=paper ... [--seeds 3]
        [--called "20 classes of Tiny ImageNet"] [--out benchmarks/results/ablate.json]

A change is one `key=value`, or several with commas between, as `train run --set` takes them. Each
is trained with the same seeds, one run after the other, in a folder of WORK; validation data lies
beside BETON. What has finished is not trained again: stopped, the same command goes on.

Told of every change: top-1 and top-5 error of validation after the last epoch, the mean over seeds
with the lowest and highest, and the time of training, which is of this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.report import tell
from train import metrics
from train.recipe import load_recipe

AS_IT_IS = "as it is"


def train(beton: Path, out: Path, recipe: str, values: list[str], workers: int) -> dict[str, Any]:
    """One run, or the rest of it; its last epoch's row, with the seconds of all epochs."""
    command = [sys.executable, "-m", "train.cli", "run", "--beton", str(beton), "--recipe", recipe]
    command += ["--out", str(out), "--workers", str(workers)]
    command += [word for value in values for word in ("--set", value)]
    subprocess.run(command, check=True)
    epochs = [row for row in metrics.read(out / metrics.FILE_NAME) if row["kind"] == "epoch"]
    return epochs[-1] | {"seconds": sum(row["seconds"] for row in epochs)}


def over_seeds(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(sum(values) / len(values), 4),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("beton", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", dest="values", nargs="*", default=[])
    parser.add_argument("--change", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=machine()["cores"])
    parser.add_argument("--called", help="what BETON holds, for the report; default: its name")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    changes: dict[str, list[str]] = {AS_IT_IS: []}
    changes |= {change: change.split(",") for change in arguments.change}
    for change in changes.values():  # a slip of the pen is told before hours of training
        load_recipe(arguments.recipe, [*arguments.values, *change])
    rows = {}
    for name, change in changes.items():
        runs = [
            train(
                arguments.beton,
                arguments.work / f"{name.replace('/', '-')}, seed {seed}",
                arguments.recipe,
                [*arguments.values, *change, f"seed={seed}"],
                arguments.workers,
            )
            for seed in range(arguments.seeds)
        ]
        rows[name] = {
            "top-1 error": over_seeds([run["val_top1_error"] for run in runs]),
            "top-5 error": over_seeds([run["val_top5_error"] for run in runs]),
            "training loss": over_seeds([run["loss"] for run in runs]),
            "seconds": over_seeds([run["seconds"] for run in runs]),
        }
    report = {
        "machine": machine(),
        "beton": arguments.called or arguments.beton.name,
        "recipe": [arguments.recipe, *arguments.values],
        "seeds": arguments.seeds,
        "changes": rows,
    }
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
