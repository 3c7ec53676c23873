"""The order in which an epoch visits a beton's samples, and each process's part of a batch.

An order is a function of (seed, epoch) alone (NumPy's PCG64). Batches are cut from it for all
processes together, and each process takes its part of every batch: a run sees the same batches on
any number of processes, uses every sample once an epoch, and goes on at any step without visiting
what was before.

- random: any sample after any other; every record is read by itself. For betons that fit in memory,
  and for disks that do not mind.
- quasi-random: WINDOW pages of the file, drawn at random, are shuffled together, then the next
  ones; each page is read once, whole, by every process that has samples of it. For betons larger
  than memory. What lies together in the file stays within one window: write such a beton with
  `--order shuffled`.
- sequential: as in the file, the same in every epoch. The authors shuffled once on disk and then
  read like that (Krizhevsky et al. 2012, data provider of the published code).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]
OrderName = Literal["random", "quasi-random", "sequential"]

WINDOW = 64  # pages of 8 MiB: half a gigabyte, of which twice as much is in the page cache


def epoch_order(kind: OrderName, pages: npt.NDArray[np.int64], seed: int, epoch: int) -> Order:
    """int64 [N], each sample once; pages [N]: the page of the file that each sample is in."""
    samples = len(pages)
    if kind == "sequential":
        return np.arange(samples)
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(samples)
    if kind == "random":
        return shuffled
    numbers, page_of_sample = np.unique(pages, return_inverse=True)
    window_of_page = generator.permutation(len(numbers)) // WINDOW
    windows = window_of_page[page_of_sample[shuffled]]
    return shuffled[np.argsort(windows, kind="stable")]


def part_size(batch: int, rank: int, world: int) -> int:
    """How many samples of a batch are those of process `rank` of `world`."""
    return batch // world + (rank < batch % world)


def part_of_batches(order: Order, batch: int, rank: int, world: int, first_step: int = 0) -> Order:
    """What process `rank` visits from step `first_step` on, batch after batch, int64 [M].

    Of every batch it has part_size() samples, which follow one another; the last batch may be
    smaller.
    """
    rest = order[first_step * batch :]
    before = sum(part_size(batch, other, world) for other in range(rank))
    size = part_size(batch, rank, world)
    whole = len(rest) // batch * batch
    parts = rest[:whole].reshape(-1, batch)[:, before : before + size].ravel()
    last = len(rest) - whole
    start = whole + sum(part_size(last, other, world) for other in range(rank))
    return np.concatenate([parts, rest[start : start + part_size(last, rank, world)]])


def step_count(samples: int, batch: int) -> int:
    return math.ceil(samples / batch)
