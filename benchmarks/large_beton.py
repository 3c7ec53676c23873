"""A beton of ImageNet's size: 1,281,167 records, beyond 4 GiB and beyond memory.

    python -m benchmarks.large_beton OUT/SPLIT WORK [--count 1281167] [--largest BYTES]
        [--called TEXT] [--out benchmarks/results/large-beton.json]

OUT/SPLIT is a split that `prep resize` made; its JPEGs (with --largest, those of at most so many
bytes: 1,281,167 of 30 KB are 38 GB) are repeated as often as it takes. No million files are made:
WORK/out/train has a tar a class, as `prep resize --layout tar` leaves it, and rows of its manifest
that name the same place in a tar again and again. So reading is from the page cache; writing,
read-back and checking are those of a beton of full size, with ImageNet's samples a class.

`prep write-beton` and `prep verify` run as commands. Then FFCV's own Reader opens the file, and
1,000 records that it points to are decoded. The beton is deleted at the end (--keep leaves it).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.full_size import add, status
from benchmarks.machine import machine
from benchmarks.report import tell
from prep import handover, images, prepared
from prep.handover import ClassEntry
from prep.manifest import load
from prep.place import read_unchanged
from prep.sources.tars import members, size_of

IMAGES = 1_281_167
POLL = 0.2  # seconds
READ = 1000  # records that are read through FFCV's Reader


@dataclasses.dataclass(frozen=True)
class Tar:
    """A class's different JPEGs, and where they lie in its tar."""

    offsets: list[int]
    sizes: list[int]
    crc32: list[int]
    digests: list[bytes]


# --------------------------------------------------------------------------- the prepared set


def build(pictures: Path, folder: Path, count: int, largest: int | None) -> int:
    """Write tars, manifest and card of a split with ImageNet's classes; returns its samples."""
    given = prepared.open_prepared(pictures)
    small = np.flatnonzero(given.sizes <= (largest or given.sizes.max()))
    if len(small) == 0:
        raise SystemExit(f"{pictures} has no JPEG of at most {largest} bytes")
    known = load("imagenet-1k").classes
    counts = [max(int(entry.images["train"] * count / IMAGES), 1) for entry in known]
    shares = np.array_split(np.resize(small, max(len(small), len(known))), len(known))
    folder.mkdir(parents=True)
    tables, digests = [], []
    for label, (entry, total, share) in enumerate(zip(known, counts, shares, strict=True)):
        data = [read_unchanged(given.places(i, i + 1)[0]) for i in share.tolist()]
        tar = write_tar(folder / f"{entry.folder}.tar", data)
        tables.append(manifest_rows(entry.folder, label, total, tar))
        digests += list(itertools.islice(itertools.cycle(tar.digests), total))
    labels = np.repeat(np.arange(len(known)), counts)
    array = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    classes = zip(known, counts, strict=True)
    card = dataclasses.replace(
        given.card,
        split="train",
        samples=len(labels),
        classes=tuple(ClassEntry(entry.folder, entry.name, total) for entry, total in classes),
        pixels_id=handover.pixels_id(labels, array),
    )
    # Row groups of some 10,000 rows, as prep.finish writes them.
    grouped = (pa.concat_tables(tables[i : i + 8]) for i in range(0, len(tables), 8))
    prepared.write_manifest(grouped, {}, prepared.manifest_path(folder))
    handover.write_card(card, prepared.split_card_path(folder))
    return len(labels)


def write_tar(path: Path, data: list[bytes]) -> Tar:
    with tarfile.open(path, "w") as tar:
        for number, jpeg in enumerate(data):
            add(tar, f"{number}.jpg", jpeg)
    with path.open("rb") as file:
        offsets = [member.offset for member in members(file, 0, size_of(file))]
    return Tar(
        offsets,
        [len(jpeg) for jpeg in data],
        [zlib.crc32(jpeg) for jpeg in data],
        [hashlib.sha256(jpeg).digest() for jpeg in data],
    )


def manifest_rows(folder: str, label: int, count: int, tar: Tar) -> pa.Table:
    """`count` samples of a class, which repeat those of its tar."""
    columns: dict[str, Any] = {
        "class": [folder] * count,
        "label": [label] * count,
        "name": [f"{folder}/{folder}_{number:06d}.jpg" for number in range(count)],
        "shard": [f"{folder}.tar"] * count,
        "offset": np.resize(tar.offsets, count),
        "source": [f"{folder}_{number:06d}.JPEG" for number in range(count)],
        "width": [500] * count,
        "height": [375] * count,
        "kind": ["JPEG YCbCr"] * count,
        "bytes": np.resize(tar.sizes, count),
        "crc32": np.resize(np.array(tar.crc32, np.uint32), count),
        "sha256": list(itertools.islice(itertools.cycle(tar.digests), count)),
        "status": ["ok"] * count,
        "reason": [None] * count,
    }
    return pa.table(columns, schema=prepared.SCHEMA)


# --------------------------------------------------------------------------- the commands


def timed(arguments: list[str], samples: int) -> dict[str, Any]:
    """Run a command of prep: its seconds, its rate, and the peak memory of its first process."""
    line = [str(Path(sys.executable).parent / "prep"), *arguments]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(line)
    while process.poll() is None:
        peak = max(peak, status(process.pid, "VmHWM"))
        time.sleep(POLL)
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    return {
        "seconds": round(seconds, 1),
        "images/s": round(samples / seconds),
        "peak memory of the parent, MiB": peak >> 20,
    }


def read_with_ffcv(path: Path, digests: Iterator[bytes]) -> dict[str, Any]:
    """Open with FFCV's Reader and decode records anywhere; their bytes are those prepared."""
    from ffcv.reader import Reader

    known = set(digests)
    started = time.monotonic()
    reader = Reader(str(path))
    opened = time.monotonic() - started
    table = reader.alloc_table
    table = table[np.argsort(table["sample_id"], kind="stable")]
    assert np.array_equal(table["ptr"], reader.metadata["f0"]["data_ptr"])
    chosen = np.random.default_rng(0).integers(len(table), size=READ).tolist()
    with path.open("rb") as file:
        for sample in [0, *chosen, len(table) - 1]:
            file.seek(int(table["ptr"][sample]))
            data = file.read(int(table["size"][sample]))
            assert hashlib.sha256(data).digest() in known, f"sample {sample}"
            assert images.decode_as_ffcv(data).shape[2] == 3
    return {
        "seconds to open": round(opened, 2),
        "records read": len(chosen) + 2,
        "last record at": int(table["ptr"].max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=IMAGES)
    parser.add_argument("--largest", type=int)
    parser.add_argument("--called", help="what OUT/SPLIT holds, for the report; default: OUT")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder, beton = arguments.work / "out" / "train", arguments.work / "train.beton"
    started = time.monotonic()
    samples = build(arguments.pictures, folder, arguments.count, arguments.largest)
    built = time.monotonic() - started
    split = prepared.open_prepared(folder)
    report: dict[str, Any] = {
        "machine": machine(),
        "pictures": f"{arguments.called or arguments.pictures.resolve().parent.name}, repeated",
        "samples": samples,
        "mean_bytes": round(float(split.sizes.mean())),
        "seconds to make the prepared set": round(built),
        "write-beton": timed(["write-beton", str(folder), str(beton)], samples),
        "bytes": beton.stat().st_size,
        "verify": timed(["verify", str(beton)], samples),
        "FFCV's Reader": read_with_ffcv(beton, map(bytes, split.digests)),
    }
    if not arguments.keep:
        for path in [beton, *arguments.work.glob("train.*")]:
            path.unlink(missing_ok=True)
        shutil.rmtree(folder.parent)
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
