"""The samples of a beton, written as they are made: one after the other, none across a page's end.

Where the first page begins depends on how many samples there will be, which some sources show only
when they are read. It is taken from a guess; if that was wrong, which takes 400,000 samples or some
at a multiple of that, the pages are copied to their places at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from prep.beton import PAGE_SIZE, data_start
from prep.files import naming, write_at
from prep.program import UserError


class LostSamplesError(Exception):
    """The file ends before the samples that it should hold."""


class SampleStream:
    """The open file `path`, in which the samples of a beton follow one another.

    guess: how many samples there will be. sizes: bytes of those that are in the file already;
    what follows them, which a killed run may have left, is cut off.
    Raises LostSamplesError when the file is shorter than that.
    """

    def __init__(self, path: Path, guess: int, sizes: Sequence[int]) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._first = self._end = data_start(guess)
        for size in sizes:
            self._end = self._place(size) + size
        if os.fstat(self._file).st_size < self._end and sizes:
            os.close(self._file)
            raise LostSamplesError(f"{path} ends before its {len(sizes)} samples do")
        os.ftruncate(self._file, self._end)

    def append(self, jpegs: bytes, sizes: Sequence[int]) -> None:
        """Add samples, whose bytes follow one another in `jpegs`."""
        data, start, stop = memoryview(jpegs), 0, 0  # of what is not yet written
        with naming(self._path):
            for size in sizes:
                place = self._place(size)
                if place != self._end:
                    write_at(self._file, data[start:stop], self._end - (stop - start))
                    start = stop
                stop += size
                self._end = place + size
            write_at(self._file, data[start:stop], self._end - (stop - start))

    def _place(self, size: int) -> int:
        """Where a sample of `size` bytes goes."""
        if size > PAGE_SIZE:
            raise UserError(
                f"a sample has {size} bytes, a page holds {PAGE_SIZE}; prepare with a smaller "
                "--size or --quality"
            )
        used = (self._end - self._first) % PAGE_SIZE
        return self._end if used + size <= PAGE_SIZE else self._end + PAGE_SIZE - used

    def make_durable(self) -> None:
        with naming(self._path):
            os.fdatasync(self._file)

    def link(self, path: Path, start: int) -> None:
        """Make `path`, which is not there, the same file, or a copy with another first page."""
        if start != self._first:
            with path.open("wb") as out, os.fdopen(os.dup(self._file), "rb") as file:
                file.seek(self._first)
                out.seek(start)
                shutil.copyfileobj(file, out, PAGE_SIZE)
            return
        try:
            path.hardlink_to(self._path)
        except OSError:  # a file system without links: what is there may have to be made again
            self._path.replace(path)

    def close(self) -> None:
        """Twice is as good as once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
