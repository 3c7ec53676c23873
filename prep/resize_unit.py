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

SYNC_EVERY = 100  # files of a unit, so that few are left to be waited for at its end


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
    disk = Disk(unit.images_folder)
    try:

        def write(name: str, jpeg: bytes) -> int:
            path = f"{folder}/{name}"
            try:
                _write_file(path, jpeg)
            except OSError as error:
                raise _cannot_write(path, error.strerror) from error
            if next(numbers) % SYNC_EVERY == 0:
                disk.begin()
            return 0

        yield write
        disk.wait()
    finally:
        disk.close()


class Disk:
    """Has what is written in a folder on the disk: `begin` in a thread, `wait` until all is.

    One descriptor from the first file to the last: the system tells of a failure once, and to those
    who had the file system open then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY)
        self._thread = ThreadPoolExecutor(1)
        self._begun: Future[None] | None = None

    def begin(self) -> None:
        """Unless the disk is still busy with what was begun before; raises UserError as `wait`."""
        if self._begun is None or self._begun.done():
            self._raise_failure()
            self._begun = self._thread.submit(_sync, self._descriptor, self._folder)

    def wait(self) -> None:
        """Raises UserError when something could not be written."""
        self._raise_failure()
        _sync(self._descriptor, self._folder)

    def _raise_failure(self) -> None:
        if self._begun is not None:
            self._begun.result()

    def close(self) -> None:
        self._thread.shutdown()
        os.close(self._descriptor)


def _write_file(path: str, data: bytes) -> None:
    """As Path.write_bytes(), which takes half as long again.

    A whole file that is there already, from a worker that was thought dead, stays whole throughout.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):  # the disk is nearly full, or a signal came
            written += os.write(descriptor, data[written:])
        if os.fstat(descriptor).st_size > len(data):  # seldom, and asked more quickly than cut
            os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _sync(descriptor: int, folder: Path) -> None:
    """Put a file system's files on its disk in one call; an fsync for each costs 0.2 ms a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):  # not Linux
        os.sync()
    elif libc.syncfs(descriptor) != 0:
        raise _cannot_write(folder, os.strerror(ctypes.get_errno()))


def _cannot_write(path: Path | str, reason: str | None) -> UserError:
    return UserError(
        f"cannot write {path}: {reason}; make room, then run the same command again: finished "
        "work is kept"
    )
