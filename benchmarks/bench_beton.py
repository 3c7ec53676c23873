"""Rates of writing a beton from prepared files, beside FFCV's own writer and beside `cp -r`.

    python -m benchmarks.bench_beton [OUT/SPLIT [--called TEXT]] [--rounds 5]
        [--out benchmarks/results/beton.json]

OUT/SPLIT is a split that `prep resize` made, a file a picture; without one, pictures of `prep
sample` are drawn and prepared. A round goes through every way; the first round is thrown away, and
ratios are taken within a round. The prepared files are in the page cache, what a way has written
is removed and the disk is waited for before the next one begins.

Ours is a call of the command's function in this process, with every core: from the folder to the
four files, read back, hashed and durable. FFCV's DatasetWriter is fed the same files, each decoded
to pixels, which is what its RGBImageField takes and encodes again; it waits for no disk, nor does
`cp -r`, which is therefore shown with a wait for the disk as well. Also reported: what a sample
costs one core, part by part, in memory.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from benchmarks.machine import machine, remove
from benchmarks.report import spread, tell
from prep import images, plan, resize
from prep.prepared import PreparedSplit, open_prepared
from prep.sample import draw_sample
from prep.sources import find_source
from prep.write import write_beton

OURS = "prep write-beton, jpg"
THEIRS = {workers: f"FFCV's DatasetWriter, {workers} workers" for workers in (1, 2)}
COPY = "cp -r"
QUALITY = 95  # as the prepared files
TARGETS = {f"{OURS} / {THEIRS[2]}": 5.0, f"{OURS} / {COPY}": 0.5}


# --------------------------------------------------------------------------- the ways


class Pictures:
    """The prepared files as FFCV's writer takes them: (pixels, label)."""

    def __init__(self, split: PreparedSplit) -> None:
        self.paths = [place.path for place in split.places(0, len(split))]
        self.labels = split.labels.tolist()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> tuple[npt.NDArray[Any], int]:
        return images.decode_as_ffcv(self.paths[sample].read_bytes()), self.labels[sample]


def ours(split: PreparedSplit, out: Path) -> None:
    write_beton(split.folder, out / "ours.beton", "jpg", None)


def theirs(pictures: Pictures, workers: int, out: Path) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {
        "image": RGBImageField(write_mode="jpg", jpeg_quality=QUALITY),
        "label": IntField(),
    }
    writer = DatasetWriter(str(out / "theirs.beton"), fields, num_workers=workers)
    writer.from_indexed_dataset(pictures)


def copied(split: PreparedSplit, wait: bool, out: Path) -> None:
    subprocess.run(["cp", "-r", str(split.folder), str(out / "copy")], check=True)
    if wait:
        subprocess.run(["sync", "-f", str(out)], check=True)


def parts(split: PreparedSplit) -> dict[str, float]:
    """Microseconds a sample, on one core."""
    paths = [place.path for place in split.places(0, min(len(split), 1000))]
    data = [path.read_bytes() for path in paths]
    work: dict[str, Callable[[], list[Any]]] = {
        "read": lambda: [path.read_bytes() for path in paths],
        "crc32": lambda: [zlib.crc32(each) for each in data],
        "sha256": lambda: [hashlib.sha256(each).digest() for each in data],
        "frame header": lambda: [images.jpeg_shape(each) for each in data],
        "decode": lambda: [images.decode_as_ffcv(each)[0, 0, 0] for each in data],
    }
    found = {}
    for name, do in work.items():
        do()
        started = time.perf_counter()
        do()
        found[name] = round((time.perf_counter() - started) / len(data) * 1e6, 1)
    return found


# --------------------------------------------------------------------------- the report


def measure(split: PreparedSplit, rounds: int, folder: Path) -> dict[str, Any]:
    pictures = Pictures(split)
    ways: dict[str, Callable[[Path], None]] = {
        OURS: functools.partial(ours, split),
        **{name: functools.partial(theirs, pictures, n) for n, name in THEIRS.items()},
        COPY: functools.partial(copied, split, False),
        f"{COPY}, then sync -f": functools.partial(copied, split, True),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, do in ways.items():
            out = folder / "round"
            out.mkdir()
            os.sync()
            started = time.perf_counter()
            do(out)
            seconds = time.perf_counter() - started
            remove(out)
            if number > 0:
                rates[way].append(len(split) / seconds)

    def ratio(other: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(rates[OURS], rates[other], strict=True)])

    return {
        "images/s": {way: spread(values) for way, values in rates.items()},
        "ratios": {f"{OURS} / {other}": ratio(other) for other in ways if other != OURS},
        "targets": TARGETS,
        "a sample on one core, microseconds": parts(split),
    }


def prepared_sample(folder: Path) -> Path:
    """A prepared split of drawn pictures."""
    draw_sample(folder / "source", 10, 200, 10, 0, None, lambda *_: None)
    resize.resize(find_source(folder / "source"), folder / "out", plan.Options())
    return folder / "out" / "train"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("split", type=Path, nargs="?")
    parser.add_argument("--called", help="what OUT/SPLIT holds, for the report; default: OUT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where betons and copies go; default: /tmp")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        folder = arguments.split or prepared_sample(Path(name))
        split = open_prepared(folder)
        report = {
            "machine": machine(),
            "pictures": arguments.called
            or (folder.resolve().parent.name if arguments.split else "prep sample"),
            "samples": len(split),
            "mean_bytes": round(float(split.sizes.mean())),
            "rounds": arguments.rounds,
            **measure(split, arguments.rounds, Path(name)),
        }
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
