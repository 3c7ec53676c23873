"""Rates of prep's commands on one folder of originals.

    python -m benchmarks.bench_prep [SRC] [--out benchmarks/results/prep.json]

The four commands run once with every core, files written and made durable as they always are. SRC
is a folder as `prep resize` takes it; without one, pictures of `prep sample` are drawn. What one
core makes of one picture is measured by benchmarks/bench_resize.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from prep import plan, resize, stats, verify, write
from prep.sample import draw_sample
from prep.sources import find_source
from prep.sources.listing import Source


def command_rates(found: Source, folder: Path) -> dict[str, float]:
    """Images/s of each command with every core."""
    split, beton = next(iter(found.splits)), folder / "train.beton"
    count = sum(len(entries.listing) for entries in found.splits.values())
    prepared = folder / "prepared" / split
    in_split = len(found.splits[split].listing)
    stages: list[tuple[str, int, Callable[[], Any]]] = [
        ("resize", count, lambda: resize.resize(
            found, folder / "prepared", plan.Options(max_rejects=1.0))),
        ("stats", in_split, lambda: stats.measure(prepared, None)),
        ("write-beton", in_split, lambda: write.write_beton(prepared, beton, "jpg", None)),
        ("verify", in_split, lambda: verify.verify(beton, None)),
    ]  # fmt: skip
    rates = {}
    for name, number, stage in stages:
        started = time.perf_counter()
        stage()
        rates[name] = number / (time.perf_counter() - started)
    return rates


def no_report(done: int, rejected: int = 0) -> None:
    """Progress of the drawing, which nobody watches here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or Path(folder) / "prep sample"
        if arguments.source is None:
            draw_sample(source, 10, 100, 10, 0, None, no_report)
        found = find_source(source)
        listings = [split.listing for split in found.splits.values()]
        sizes = [size for listing in listings for size in listing.places["size"].tolist()]
        report = {
            "machine": machine(),
            "source": source.name,
            "pictures": len(sizes),
            "mean_bytes": sum(sizes) / len(sizes),
            "commands with every core, images/s": command_rates(found, Path(folder)),
        }
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
