"""What the system is told of an epoch's reading, so that the disk is ahead of the decoder.

FFCV asks a memory manager where the bytes of a record are; this one stands in its place, because
records are read by train.reading. Before each batch it knows what comes next:

- random: the records of the batches that follow, one by one (train.reading asks for them).
- quasi-random: whole pages of the file, in the order of their windows, one window ahead: long
  reads that follow one another in nothing but the page.
- sequential: the system sees it by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from ffcv.memory_managers.base import MemoryContext, MemoryManager

from train.epoch_order import WINDOW, OrderName
from train.reading import ADVISES, Reading

BATCHES = 2  # of samples that are asked for before they are read


class ReadAhead(MemoryManager):  # type: ignore[misc]
    """Makes the read-ahead of each epoch."""

    state_type = None  # nothing is read through it

    def __init__(
        self, reading: Reading, kind: OrderName, pages: npt.NDArray[np.int64], page_size: int
    ) -> None:
        """pages [N]: the page of the file that each sample is in."""
        self._reading, self._kind = reading, kind
        self._pages, self._page_size = pages, page_size
        if ADVISES:
            advice = os.POSIX_FADV_SEQUENTIAL if kind == "sequential" else os.POSIX_FADV_RANDOM
            os.posix_fadvise(reading.file, 0, 0, advice)

    def schedule_epoch(self, batches: Sequence[npt.NDArray[np.int64]]) -> MemoryContext:
        if self._kind == "sequential" or not batches:
            return NothingAhead()
        if self._kind == "random":
            return RecordsAhead(self._reading, batches)
        return PagesAhead(self._reading, batches, self._pages, self._page_size)

    def compile_reader(self) -> None:
        """No operation of this project asks for it."""


class NothingAhead(MemoryContext):  # type: ignore[misc]
    """Of one epoch, which is never again: its thread may still end while the next one runs."""

    state = None

    def start_batch(self, number: int) -> None:
        """Called before batch `number` is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to give back."""


class RecordsAhead(NothingAhead):
    """Those of the batch that comes BATCHES later."""

    def __init__(self, reading: Reading, batches: Sequence[npt.NDArray[np.int64]]) -> None:
        self._reading, self._batches = reading, batches

    def start_batch(self, number: int) -> None:
        coming = self._batches[number + BATCHES : number + BATCHES + 1]
        self._reading.ahead = coming[0].astype(np.int64) if coming else np.empty(0, np.int64)


class PagesAhead(NothingAhead):
    """A window of pages, in the order of their first use."""

    def __init__(
        self,
        reading: Reading,
        batches: Sequence[npt.NDArray[np.int64]],
        pages: npt.NDArray[np.int64],
        page_size: int,
    ) -> None:
        self._file, self._page_size, self._steps = reading.file, page_size, len(batches)
        numbers, first = np.unique(pages[np.concatenate(batches)], return_index=True)
        self._todo: list[int] = numbers[np.argsort(first)].tolist()
        self._told = 0

    def start_batch(self, number: int) -> None:
        until = WINDOW + len(self._todo) * (number + 1) // self._steps
        for page in self._todo[self._told : until]:
            will_need(self._file, page * self._page_size, self._page_size)
        self._told = until


def will_need(file: int, offset: int, size: int) -> None:
    """Ask the system to read these bytes of a file, where it can be asked."""
    if ADVISES:
        os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)
