"""Long checks, run by `make soak`: kills at random moments, and what the demo's network learned.

Their results go to benchmarks/results/soak-*.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import demo, shortcuts
from benchmarks.machine import machine
from prep import beton, plan, resize, stats
from prep.handover import pixels_id, read_card, write_card
from prep.prepared import (
    manifest_path,
    open_prepared,
    plan_of,
    split_card_path,
    write_manifest,
)
from prep.sample import draw_sample
from prep.sources import find_source

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
KILLS, PARTIAL_AT_LEAST = 25, 20
LOST_AT_LEAST = 0.20  # of top-1 accuracy, on each kind of damaged copy
ACCURACY_AT_LEAST = 0.70  # top-1 on ten classes
SECONDS_AT_MOST = 240.0  # for the demo on two cores


def save(name: str, values: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    report = {"machine": machine()} | values
    (RESULTS / f"soak-{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of every file below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class Stage(Protocol):
    """A command to kill, on data of its own."""

    name: str  # of prep's command
    units: int  # that it does one after the other

    def __init__(self, folder: Path) -> None: ...

    def arguments(self, out: Path) -> list[str]:
        """The command line; all that it writes is below `out`."""

    def done(self, out: Path) -> int:
        """How many units are finished in `out`."""

    def finished_work(self, out: Path) -> object:
        """What the next run must not do again."""

    def was_kept(self, finished: object, out: Path, said: str) -> bool:
        """Whether it did not; said: what the next run printed."""


class Resize:
    name = "resize"

    def __init__(self, folder: Path) -> None:
        self._source = folder / "source"
        draw_sample(self._source, 10, 250, 25, 0, None, lambda done, rejected=0: None)  # noqa: ARG005
        self.units = len(find_source(self._source).splits["train"].unit_bounds()) - 1

    def arguments(self, out: Path) -> list[str]:
        return [str(self._source), str(out)]

    def done(self, out: Path) -> int:
        return len(self._rows(out))

    def finished_work(self, out: Path) -> object:
        """The file numbers of the prepared pictures that finished units name."""
        tables = [pq.read_table(path, columns=["name", "status"]) for path in self._rows(out)]
        rows = [row for table in tables for row in table.to_pylist()]
        names = [row["name"] for row in rows if row["status"] == "ok"]
        return {name: (out / "train.partial" / name).stat().st_ino for name in names}

    def was_kept(self, finished: object, out: Path, said: str) -> bool:
        del said
        assert isinstance(finished, dict)
        return all((out / "train" / name).stat().st_ino == ino for name, ino in finished.items())

    @staticmethod
    def _rows(out: Path) -> list[Path]:
        return list((out / ".prep" / "train").glob("0*.parquet"))


class WriteBeton:
    """Raw pixels of 2,500 pictures: 60 pages, half a gigabyte."""

    name = "write-beton"

    def __init__(self, folder: Path) -> None:
        source, self._set = folder / "source", folder / "set"
        draw_sample(source, 10, 250, 25, 0, None, lambda done, rejected=0: None)  # noqa: ARG005
        resize.resize(find_source(source), self._set, plan.Options())
        samples = read_card(self._set / "train.json").samples
        pixels = np.full(samples, 256 * 256 * 3, np.uint64)
        self._layout = beton.plan_layout(pixels)
        self.units = samples

    def arguments(self, out: Path) -> list[str]:
        out.mkdir(exist_ok=True)
        options = ["--mode", "raw", "--order", "shuffled"]
        return [str(self._set / "train"), str(out / "train.beton"), *options]

    def done(self, out: Path) -> int:
        """Samples, by the checksums behind the end of the unfinished file (prep.journal)."""
        try:
            size = (out / "train.beton.partial").stat().st_size
        except FileNotFoundError:
            return 0
        return max(size - self._layout.file_size - hashlib.sha256().digest_size, 0) // 4

    def finished_work(self, out: Path) -> object:
        return self.done(out)

    def was_kept(self, finished: object, out: Path, said: str) -> bool:
        del out
        return finished == 0 or f"{finished} of them were there" in said


class Stats:
    """500 pictures, a hundred times over: 49 units."""

    name = "stats"
    TIMES = 100

    def __init__(self, folder: Path) -> None:
        source, self._set = folder / "source", folder / "set"
        draw_sample(source, 10, 50, 5, 0, None, lambda done, rejected=0: None)  # noqa: ARG005
        resize.resize(find_source(source), self._set, plan.Options(max_rejects=1.0))
        train = self._set / "train"
        split, table = open_prepared(train), pq.read_table(manifest_path(train))
        write_manifest([table] * self.TIMES, plan_of(train), manifest_path(train))
        named = pixels_id(
            np.tile(split.labels, self.TIMES), np.tile(split.digests, (self.TIMES, 1))
        )
        many = dataclasses.replace(split.card, samples=self.TIMES * len(split), pixels_id=named)
        write_card(many, split_card_path(train))
        self.units = -(-many.samples // stats.UNIT_SIZE)

    def arguments(self, out: Path) -> list[str]:
        if not out.exists():
            out.mkdir()
            (out / "train").symlink_to(self._set / "train")
            for name in ("train.json", "train.parquet"):
                shutil.copy(self._set / name, out)
        return [str(out / "train")]

    def done(self, out: Path) -> int:
        return units_noted(out / "train.stats.npz.checkpoint")

    def finished_work(self, out: Path) -> object:
        return pictures_noted(out / "train.stats.npz.checkpoint")

    def was_kept(self, finished: object, out: Path, said: str) -> bool:
        del out
        return not finished or f"{finished} more by an earlier run" in said


class Build:
    name = "build"

    def __init__(self, folder: Path) -> None:
        self._source = folder / "source"
        draw_sample(self._source, 10, 400, 5, 0, None, lambda done, rejected=0: None)  # noqa: ARG005
        self._pictures = sum(
            len(split.listing) for split in find_source(self._source).splits.values()
        )
        self.units = len(find_source(self._source).splits["train"].unit_bounds()) - 1

    def arguments(self, out: Path) -> list[str]:
        return [str(self._source), str(out)]

    def done(self, out: Path) -> int:
        return units_noted(out / ".prep" / "train" / "sums.checkpoint")

    def finished_work(self, out: Path) -> object:
        """Pictures that the next run need not prepare."""
        rows = sorted((out / ".prep" / "train").glob("0*.parquet"))[: self.done(out)]
        return sum(pq.read_metadata(path).num_rows for path in rows)

    def was_kept(self, finished: object, out: Path, said: str) -> bool:
        del out
        assert isinstance(finished, int)
        return f"{self._pictures - finished:,} pictures in " in said


def units_noted(checkpoint: Path) -> int:
    try:
        with np.load(checkpoint) as saved:
            return int(saved["done"].sum())
    except FileNotFoundError:
        return 0


def pictures_noted(checkpoint: Path) -> int:
    try:
        with np.load(checkpoint) as saved:
            return int(saved["count"])
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("kind", [Resize, Stats, WriteBeton, Build])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    tmp_path: Path, kind: type[Stage]
) -> None:
    stage = kind(tmp_path)
    command = [str(Path(sys.executable).parent / "prep"), stage.name]
    whole = tmp_path / "whole"
    subprocess.run([*command, *stage.arguments(whole)], check=True, capture_output=True)
    expected = digest(whole)
    chance, partial = random.Random(0), 0
    for attempt in range(KILLS):
        out = tmp_path / f"out{attempt}"
        line = [*command, *stage.arguments(out)]
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wanted = chance.randrange(1, stage.units - 1)
        while process.poll() is None and stage.done(out) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.05))
        alive = process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done, finished = stage.done(out), stage.finished_work(out)
        partial += alive and 0 < done < stage.units
        said = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        assert digest(out) == expected, f"attempt {attempt}, killed after {done} units"
        assert stage.was_kept(finished, out, said), f"attempt {attempt}: work was done twice"
        shutil.rmtree(out)
    figures = {"command": f"prep {stage.name}", "kills": KILLS, "with some units done": partial}
    save(f"kills-{stage.name}", figures)
    assert partial >= PARTIAL_AT_LEAST


def test_the_demo_learns_shape_colour_and_texture_in_time(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo.main(out)
    report = json.loads((out / "demo.json").read_text())
    accuracies = shortcuts.accuracies(out / "run", out / "val.beton")
    save("demo", report | {"top-1 accuracy": accuracies})
    plain = accuracies.pop("as they are")
    assert plain >= ACCURACY_AT_LEAST
    for copy, accuracy in accuracies.items():
        assert plain - accuracy >= LOST_AT_LEAST, copy
    assert report["seconds"] <= SECONDS_AT_MOST
