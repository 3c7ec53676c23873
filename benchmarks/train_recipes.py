"""Recipes trained on one data set, from its pictures to test errors, with several seeds each.

    python -m benchmarks.train_recipes SRC WORK --data TEXT --recipe tiny-imagenet paper fast
        [--seeds 3] [--set epochs=30] [--option=--graphs] [--judge val|test] [--views 1|5|10|all]
        [--out benchmarks/results/train-NAME.json]

SRC is anything that `prep build` takes; its betons, and the runs, lie in WORK. A set value holds
for all recipes; an option is one of `train run`. What has finished is not done again: stopped, the
same command goes on. Told of every run: what benchmarks.trained tells.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import tell
from benchmarks.trained import told
from train.recipe import load_recipe

PROGRAMS = Path(sys.executable).parent


def shell(program: str, *arguments: object) -> None:
    subprocess.run([str(PROGRAMS / program), *map(str, arguments)], check=True)


def trained(beton: Path, work: Path, recipe: str, seeds: int, options: list[str]) -> list[Path]:
    """The folders of a recipe's runs; each was begun with a seed of its own."""
    folders = [work / f"{recipe}, seed {seed}" for seed in range(seeds)]
    for seed, out in enumerate(folders):
        run = ["--beton", beton, "--recipe", recipe, "--out", out, "--set", f"seed={seed}"]
        shell("train", "run", *run, *options)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", required=True, help="what the pictures are, in words")
    parser.add_argument("--recipe", nargs="+", required=True, dest="recipes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="values", nargs="*", default=[])
    parser.add_argument("--option", dest="options", action="append", default=[])
    parser.add_argument("--judge", choices=("val", "test"), default="val", help="the split")
    parser.add_argument("--views", default="all")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for recipe in arguments.recipes:  # a slip of the pen is told before hours of work
        load_recipe(recipe, arguments.values)
    betons = arguments.work / "betons"
    began = time.perf_counter()
    shell("prep", "build", arguments.source, betons)
    prepared = time.perf_counter() - began
    options = [word for value in arguments.values for word in ("--set", value)]
    runs = []
    for recipe in arguments.recipes:
        beton = betons / "train.beton"
        runs += trained(
            beton, arguments.work, recipe, arguments.seeds, [*options, *arguments.options]
        )
    report = told(runs, arguments.data, betons / f"{arguments.judge}.beton", arguments.views)
    tell(report | {"seconds of prep build": round(prepared, 1)}, arguments.out)


if __name__ == "__main__":
    main()
