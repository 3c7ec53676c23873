"""Rates of prep's commands on one folder of originals; three steps beside one pass.

    python -m benchmarks.bench_prep [SRC] [--rounds 3] [--out benchmarks/results/prep.json]

A round runs resize, stats and write-beton, then build, then verify, or build first, in turn, with
every core; files are written and made durable as they always are, and the disk is waited for before
each. SRC is a folder as `prep resize` takes it; without one, pictures of `prep sample` are drawn.
Before the first round SRC is read and some pictures go both ways, which compiles what is to be
compiled and starts both ways' worker processes: these stay, so that the rates are those of a long
run. Both ways have to end with the same bytes. What one core makes of one picture is measured by
benchmarks/bench_resize.py.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.machine import machine, remove
from benchmarks.report import spread, tell
from prep import build, plan, resize, stats, verify, write
from prep.sample import draw_sample
from prep.sources import find_source
from prep.sources.listing import Source
from prep.units import OrderedWorkers

WARM_UP = 500  # pictures
TARGETS = {"three steps / one pass": 1.05}
OPTIONS = plan.Options(max_rejects=1.0)


class Kept:
    """Workers that outlive a call of build."""

    def __init__(self, workers: OrderedWorkers, jobs: int | None) -> None:
        del jobs
        self.run = workers.run

    def close(self) -> None:
        """Somebody else does."""


class Room:
    """How many bytes a folder takes at most while the block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._over = folder, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most = 0

    def __enter__(self) -> Room:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self.most = max(self.most, taken(self._folder))


def taken(folder: Path) -> int:
    """Bytes of the files below a folder, each file once whatever its names."""
    sizes = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # a temporary file
            continue
        sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def timed(work: Callable[[], Any]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def three_steps(found: Source, split: str, folder: Path) -> dict[str, float]:
    """Seconds of each."""
    prepared = folder / "prepared"
    beton = folder / f"{split}.beton"
    steps: dict[str, Callable[[], Any]] = {
        "resize": lambda: resize.resize(found, prepared, OPTIONS),
        "stats": lambda: stats.measure(prepared / split, None),
        "write-beton": lambda: write.write_beton(prepared / split, beton, "jpg", None),
    }
    return {name: timed(step) for name, step in steps.items()}


def one_round(found: Source, split: str, folder: Path, build_first: bool) -> dict[str, float]:
    """Seconds of each command, and the bytes that build takes beside its result."""
    one, three = folder / "one", folder / "three"
    one.mkdir()
    seconds = {} if build_first else three_steps(found, split, three)
    with Room(one) as room:
        seconds["build"] = timed(lambda: build.build(found, one, OPTIONS))
    beside = max(room.most - taken(one), 0)
    if build_first:
        seconds |= three_steps(found, split, three)
    for name in (f"{split}.beton", f"{split}.json", f"{split}.stats.npz", f"{split}.records.npz"):
        if (one / name).read_bytes() != (three / name).read_bytes():
            raise AssertionError(f"{name} differs between three steps and one pass")
    seconds["verify"] = timed(lambda: verify.verify(one / f"{split}.beton", None))
    remove(one, three)
    return seconds | {"bytes beside": beside}


def measure(found: Source, rounds: int, folder: Path) -> dict[str, Any]:
    split, whole = next(iter(found.splits.items()))
    count = len(whole.listing)
    found = found.keep((split,))
    few = dataclasses.replace(whole, listing=whole.listing.part(0, WARM_UP))
    for _ in whole.read(found.root, whole.listing):
        pass
    with (
        contextlib.closing(OrderedWorkers(None)) as workers,
        mock.patch.object(build, "OrderedWorkers", functools.partial(Kept, workers)),
    ):
        one_round(dataclasses.replace(found, splits={split: few}), split, folder, False)
        done = [one_round(found, split, folder, number % 2 == 1) for number in range(rounds)]
    steps = ("resize", "stats", "write-beton")
    return {
        "commands with every core, images/s": {
            name: spread([count / each[name] for each in done])
            for name in (*steps, "build", "verify")
        },
        "ratios": {
            "three steps / one pass": spread(
                [sum(each[step] for step in steps) / each["build"] for each in done]
            )
        },
        "targets": TARGETS,
        "one pass, MB on disk beside its result, at most": round(
            max(each["bytes beside"] for each in done) / 1e6, 1
        ),
    }


def no_report(done: int, rejected: int = 0) -> None:
    """Progress of the drawing, which nobody watches here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--called", help="what SRC holds, for the report; default: its name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or Path(folder) / "prep sample"
        if arguments.source is None:
            draw_sample(source, 10, 100, 10, 0, None, no_report)
        found = find_source(source, ("train",))
        sizes = found.splits["train"].listing.places["size"]
        report = {
            "machine": machine(),
            "source": arguments.called or source.name,
            "pictures": len(sizes),
            "mean_bytes": float(sizes.mean()),
            "rounds": arguments.rounds,
            **measure(found, arguments.rounds, Path(folder)),
        }
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
