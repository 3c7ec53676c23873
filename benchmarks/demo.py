"""`make demo`: the whole line on drawn pictures, from a folder to predictions, with a table.

    python benchmarks/demo.py [OUT]        OUT defaults to demo-out/ in the checkout; it is replaced

Prints stage, time and images/s, the errors on the validation split, and where the pictures are;
the same figures go to OUT/demo.json.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from train.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
CLASSES, PER_CLASS, VAL_PER_CLASS = 10, 200, 50
TRAIN_IMAGES, VAL_IMAGES = CLASSES * PER_CLASS, CLASSES * VAL_PER_CLASS
PICTURES = {
    "prepared images": "sheet.png",
    "mean image": "mean.png",
    "predictions": "predictions.png",
}
EPOCHS = load_recipe("demo").epochs
# What a command prints goes through a pipe, which has no width.
WIDE = {**os.environ, "COLUMNS": str(shutil.get_terminal_size().columns)}


def main(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "pictures").is_dir():
        sys.exit(f"demo: {out} holds other things than a demo; give another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pictures, prepared, run = out / "pictures", out / "prepared", out / "run"
    train_beton, val_beton = out / "train.beton", out / "val.beton"
    both = TRAIN_IMAGES + VAL_IMAGES
    stages: list[tuple[str, float, int]] = []

    def stage(name: str, images: int, program: str, *arguments: object) -> str:
        seconds, output = shell(program, *arguments)
        stages.append((name, seconds, images))
        return output

    stage("sample", both, "prep", "sample", pictures, "--classes", CLASSES, "--per-class",
          PER_CLASS, "--val-per-class", VAL_PER_CLASS)  # fmt: skip
    stage("resize", both, "prep", "resize", pictures, prepared)
    sheet_png, mean_png, predictions_png = (out / file for file in PICTURES.values())
    stage("stats", TRAIN_IMAGES, "prep", "stats", prepared / "train", "--png", mean_png)
    stage("write-beton train", TRAIN_IMAGES, "prep", "write-beton", prepared / "train", train_beton)
    stage("write-beton val", VAL_IMAGES, "prep", "write-beton", prepared / "val", val_beton)
    shell("prep", "inspect", train_beton, "--png", sheet_png)
    stage("train", EPOCHS * TRAIN_IMAGES, "train", "run", "--beton", train_beton, "--recipe",
          "demo", "--out", run)  # fmt: skip
    judged = stage("eval, ten views", VAL_IMAGES, "train", "eval", run, "--beton", val_beton,
                   "--views", 10)  # fmt: skip
    chosen = [sorted(folder.iterdir())[0] for folder in sorted((pictures / "val").iterdir())]
    stage("classify", len(chosen), "train", "classify", run, *chosen, "--png", predictions_png)

    figures = {name: {"seconds": seconds, "images": images} for name, seconds, images in stages}
    report = {
        "stages": figures,
        "seconds": sum(seconds for _, seconds, _ in stages),
        "eval": judged.strip().splitlines(),
    }
    print(transcript(report, out), end="")
    (out / "demo.json").write_text(json.dumps(report, indent=1) + "\n")


def transcript(report: dict[str, Any], out: Path) -> str:
    """What the demo shows at its end; its pictures lie in `out`."""
    table = Table()
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("images/s", justify="right")
    for name, figures in report["stages"].items():
        seconds = figures["seconds"]
        table.add_row(name, f"{seconds:.1f}", f"{figures['images'] / seconds:,.0f}")
    table.add_section()
    table.add_row("all", f"{report['seconds']:.1f}", "")
    text = io.StringIO()
    Console(file=text, width=80).print(table)
    lines = [
        *report["eval"],
        f"chance would be {1 - 1 / CLASSES:.0%} top-1 error on {CLASSES} classes",
        *(f"{name}: {out / file}" for name, file in PICTURES.items()),
    ]
    return text.getvalue() + "\n".join(lines) + "\n"


def shell(program: str, *arguments: object) -> tuple[float, str]:
    """Run prep or train, show its output; returns seconds and standard output, or ends the demo."""
    words = [str(argument) for argument in arguments]
    print(f"$ {program} {' '.join(words)}", flush=True)
    started = time.monotonic()
    done = subprocess.run(
        [PROGRAMS / program, *words], stdout=subprocess.PIPE, text=True, check=False, env=WIDE
    )
    seconds = time.monotonic() - started
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"demo: {program} {words[0]} failed with exit code {done.returncode}")
    return seconds, done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo-out")
