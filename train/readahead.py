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

import numpy as np
import numpy.typing as npt
from ffcv.memory_managers.base import MemoryContext, MemoryManager

from train.epoch_order import WINDOW, OrderName
from train.reading import ADVISES, Reading

BATCHES = 2  # of samples that are asked for before they are read


class ReadAhead(MemoryManager, MemoryContext):  # type: ignore[misc]
    """Tells the system of the batches of one epoch after the other."""

    state = state_type = None  # nothing is read through it

    def __init__(
        self, reading: Reading, kind: OrderName, pages: npt.NDArray[np.int64], page_size: int
    ) -> None:
        """pages [N]: the page of the file that each sample is in."""
        self._reading, self._kind = reading, kind
        self._pages, self._page_size = pages, page_size
        if ADVISES:
            advice = os.POSIX_FADV_SEQUENTIAL if kind == "sequential" else os.POSIX_FADV_RANDOM
            os.posix_fadvise(reading.file, 0, 0, advice)

    def schedule_epoch(self, batches: Sequence[npt.NDArray[np.int64]]) -> ReadAhead:
        self._batches = batches
        self._todo: list[int] = []  # pages, in the order of their first use
        self._told = 0
        if self._kind == "quasi-random" and batches:
            pages = self._pages[np.concatenate(batches)]
            numbers, first = np.unique(pages, return_index=True)
            self._todo = numbers[np.argsort(first)].tolist()
        return self

    def start_batch(self, number: int) -> None:
        """Called before batch `number` is read."""
        if self._kind == "random" and number + BATCHES < len(self._batches):
            self._reading.ahead = self._batches[number + BATCHES].astype(np.int64)
            return
        self._reading.ahead = np.empty(0, np.int64)
        if self._kind == "quasi-random" and ADVISES:
            until = WINDOW + len(self._todo) * (number + 1) // len(self._batches)
            for page in self._todo[self._told : until]:
                os.posix_fadvise(
                    self._reading.file,
                    page * self._page_size,
                    self._page_size,
                    os.POSIX_FADV_WILLNEED,
                )
            self._told = until

    def compile_reader(self) -> None:
        """No operation of this project asks for it."""

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches = []
