"""The part of prep.resize that runs in a worker: one unit of pictures, from source to disk.

A unit's pictures become files of their own, or follow one another in one file that is later sorted
into a tar a class. Its rows are written last, when its pictures are on the disk: the file that
holds them is the journal.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prep import prepared
from prep.claim import Claim
from prep.files import own_whole_file
from prep.pictures import Run, Store, prepare_run
from prep.program import UserError
from prep.unit_rows import rows_file

SYNC_EVERY = 128  # files; the last ones alone are waited for


@dataclasses.dataclass(frozen=True)
class Unit:
    """A run of pictures, and where they go."""

    run: Run
    layout: str  # "tree" or "tar"
    images_folder: Path  # OUT/<split>.partial
    work: Path  # OUT/.prep/<split>
    claim: Claim


def part_file(work: Path, number: int) -> Path:
    """The pictures of a unit, one after the other, with layout "tar"."""
    return work / f"{number:06d}.part"


def resize_unit(unit: Unit) -> tuple[int, int]:
    """Prepare the pictures of one unit; returns how many were done and how many rejected."""
    with unit.claim.held():
        with _store(unit) as store:
            rows = prepare_run(unit.run, store)
        with own_whole_file(rows_file(unit.work, unit.run.number)) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=prepared.SCHEMA), partial)
    return len(rows), sum(row["status"] == "rejected" for row in rows)


@contextlib.contextmanager
def _store(unit: Unit) -> Iterator[Store]:
    """Yield the function that stores a picture; when the block ends, all are on the disk."""
    if unit.layout == "tar":
        path = part_file(unit.work, unit.run.number)
        with own_whole_file(path) as partial, partial.open("wb") as part:

            def append(_: str, jpeg: bytes) -> int:
                part.write(jpeg)
                return part.tell() - len(jpeg)

            yield append
        return

    folder, numbers = str(unit.images_folder), itertools.count(1)
    syncs: list[Future[None]] = []
    with ThreadPoolExecutor(1) as disk:  # which takes what is written while more is made

        def write(name: str, jpeg: bytes) -> int:
            path = f"{folder}/{name}"
            try:
                _write_file(path, jpeg)
            except OSError as error:
                raise _cannot_write(path, error.strerror) from error
            if next(numbers) % SYNC_EVERY == 0:
                syncs.append(disk.submit(_make_durable, unit.images_folder))
            return 0

        yield write
        for sync in syncs:
            sync.result()
        _make_durable(unit.images_folder)


def _write_file(path: str, data: bytes) -> None:
    """As Path.write_bytes(), which takes half as long again.

    A whole file that is there already, from a worker that was thought dead, stays whole throughout.
    """
    how, new = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, True
    try:
        descriptor = os.open(path, how | os.O_EXCL, 0o666)
    except FileExistsError:
        descriptor, new = os.open(path, how, 0o666), False
    try:
        written = os.write(descriptor, data)
        while written < len(data):  # the disk is nearly full, or a signal came
            written += os.write(descriptor, data[written:])
        if not new:
            os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _make_durable(folder: Path) -> None:
    """Put what is written on the disk in one call; an fsync for each would cost 0.2 ms a file."""
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
