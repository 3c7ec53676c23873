"""The part of prep.resize that runs in a worker: one unit of pictures, from source to disk.

A unit's pictures become files of their own, or follow one another in one file that is later sorted
into a tar a class. Its rows are written last, when its pictures are on the disk: the file that
holds them is the journal.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prep import images, prepared
from prep.claim import Claim
from prep.files import whole_file
from prep.images import Settings
from prep.names import FileNames
from prep.program import UserError
from prep.sources.listing import Listing, Picture, Read

# Stores one prepared picture under its name; returns where it begins in the file that holds it.
Store = Callable[[str, bytes], int]


@dataclasses.dataclass(frozen=True)
class Unit:
    """Consecutive entries of one split's listing, and where their pictures go."""

    number: int
    root: Path  # the source's folder
    entries: Listing
    read: Read
    names: tuple[str, ...] | None  # "<class>/<file>", one an entry; None: named as they are read
    folders: tuple[str, ...]  # of the classes, label order
    layout: str  # "tree" or "tar"
    images_folder: Path  # OUT/<split>.partial
    work: Path  # OUT/.prep/<split>
    claim: Claim
    settings: Settings

    @property
    def rows_file(self) -> Path:
        return rows_file(self.work, self.number)


def rows_file(work: Path, number: int) -> Path:
    """The rows of a unit; when it is there, so are the pictures."""
    return work / f"{number:06d}.parquet"


def part_file(work: Path, number: int) -> Path:
    """The pictures of a unit, one after the other, with layout "tar"."""
    return work / f"{number:06d}.part"


def resize_unit(unit: Unit) -> tuple[int, int]:
    """Prepare the pictures of one unit; returns how many were done and how many rejected."""
    given = FileNames(unit.folders, whole_stem=unit.layout == "tar")
    names = iter(unit.names or ())
    rows: list[prepared.Row] = []
    with unit.claim.held():
        with _store(unit) as store:
            for picture in unit.read(unit.root, unit.entries):
                name = given.add(picture.label, picture.name) if unit.names is None else next(names)
                rows.append(_resize_one(picture, name, unit.settings, store))
        with whole_file(unit.rows_file) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=prepared.SCHEMA), partial)
    return len(rows), sum(row["status"] == "rejected" for row in rows)


def _resize_one(picture: Picture, name: str, settings: Settings, store: Store) -> prepared.Row:
    row: prepared.Row = {
        "class": name.partition("/")[0],
        "label": picture.label,
        "name": name,
        "shard": None,
        "offset": 0,
        "source": os.fsencode(picture.name).decode("utf-8", "backslashreplace"),
        "width": 0,
        "height": 0,
        "kind": "",
        "bytes": 0,
        "crc32": 0,
        "sha256": None,
        "status": "rejected",
        "reason": picture.reason,
    }
    if picture.data is None:
        return row
    try:
        made = images.prepare(picture.data, settings)
    except images.RejectedImageError as error:
        return row | {"reason": str(error)}
    jpeg = images.encode_jpeg(made.pixels, settings.quality)
    return row | {
        "offset": store(name, jpeg),
        "width": made.width,
        "height": made.height,
        "kind": made.kind,
        "bytes": len(jpeg),
        "crc32": zlib.crc32(jpeg),
        "sha256": hashlib.sha256(jpeg).digest(),
        "status": "ok",
    }


@contextlib.contextmanager
def _store(unit: Unit) -> Iterator[Store]:
    """Yield the function that stores a picture; when the block ends, all are on the disk."""
    if unit.layout == "tar":
        with whole_file(part_file(unit.work, unit.number)) as partial, partial.open("wb") as part:

            def append(_: str, jpeg: bytes) -> int:
                part.write(jpeg)
                return part.tell() - len(jpeg)

            yield append
        return

    folder = str(unit.images_folder)

    def write(name: str, jpeg: bytes) -> int:
        path = f"{folder}/{name}"
        try:
            _write_file(path, jpeg)
        except OSError as error:
            raise _cannot_write(path, error.strerror) from error
        return 0

    yield write
    _make_durable(unit.images_folder)


def _write_file(path: str, data: bytes) -> None:
    """As Path.write_bytes(), which takes half as long again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):  # the disk is nearly full, or a signal came
            written += os.write(descriptor, data[written:])
    finally:
        os.close(descriptor)


def _make_durable(folder: Path) -> None:
    """Put a unit's files on disk in one call; an fsync for each would cost 0.2 ms a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "syncfs"):  # not Linux
            os.sync()
        elif libc.syncfs(descriptor) != 0:
            raise _cannot_write(folder, os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)


def _cannot_write(path: Path | str, reason: str | None) -> UserError:
    return UserError(
        f"cannot write {path}: {reason}; make room, then run the same command again: finished "
        "work is kept"
    )
