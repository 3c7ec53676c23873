"""What an unfinished beton holds already, so that a killed write is carried on.

Behind the place where the beton will end, NAME.beton.partial has the plan's sha256 (32 bytes) and
one crc32 (uint32, little-endian) for each sample written so far, added page by page once the page
is in the file. They are cut off before the file gets its name.

Nothing is made durable on the way, because nothing of it is trusted: a page is kept only when its
bytes, read again, have these checksums. After kill -9 the page cache still has everything; after a
power cut what had not reached the disk is written again.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from prep.files import write_at

CRC32 = np.dtype("<u4")


class Journal:
    """Of the open file `file`, a beton of `end` bytes and `samples` samples when it is whole."""

    def __init__(self, file: int, end: int, samples: int, plan: bytes) -> None:
        self._file, self._end = file, end
        self._first = end + len(plan)  # where the checksums begin
        # Of the samples written so far, the first ones in the file.
        self.claims: npt.NDArray[np.uint32] = np.empty(0, CRC32)
        if os.pread(file, len(plan), end) == plan:
            found = os.pread(file, samples * CRC32.itemsize, self._first)
            self.claims = np.frombuffer(found, CRC32, len(found) // CRC32.itemsize)
        else:  # of another beton, or of none
            os.ftruncate(file, 0)
            write_at(file, memoryview(plan), end)

    @staticmethod
    def begin(file: int, end: int, plan: bytes) -> None:
        """Note that what is in `file` is of the beton with this plan."""
        write_at(file, memoryview(plan), end)

    def add(self, first: int, crc32: npt.NDArray[np.uint32]) -> None:
        """Note the checksums of samples from `first` on: they are in the file."""
        noted = memoryview(crc32.astype(CRC32).tobytes())
        write_at(self._file, noted, self._first + first * CRC32.itemsize)

    def cut_off(self) -> None:
        os.ftruncate(self._file, self._end)
