"""Each sample once an epoch, for any number of processes, from any step on; what a window is."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.epoch_order import (
    WINDOW,
    OrderName,
    epoch_order,
    part_of_batches,
    part_size,
    step_count,
)

KINDS = get_args(OrderName)
PAGES = np.repeat(np.arange(5 * WINDOW + 3), 7)  # of 7 samples each


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_once(kind: OrderName) -> None:
    order = epoch_order(kind, PAGES, seed=1, epoch=2)
    assert np.array_equal(np.sort(order), np.arange(len(PAGES)))


@pytest.mark.parametrize("kind", ["random", "quasi-random"])
def test_an_order_is_a_function_of_seed_and_epoch(kind: OrderName) -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(epoch_order(kind, PAGES, seed, epoch).tolist())

    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9
    assert order(2, 1) == order(2, 1)


def test_random_is_numpy_s_permutation() -> None:
    """Pinned: a resumed run must see the order of the run that it goes on from."""
    expected = np.random.default_rng([5, 3]).permutation(len(PAGES))
    assert np.array_equal(epoch_order("random", PAGES, 5, 3), expected)


def test_sequential_is_the_file_s() -> None:
    assert np.array_equal(epoch_order("sequential", PAGES, 5, 3), np.arange(len(PAGES)))


def test_quasi_random_reads_every_page_once_and_shuffles_within_a_window() -> None:
    order = epoch_order("quasi-random", PAGES, 1, 0)
    windows = [order[start : start + 7 * WINDOW] for start in range(0, len(order), 7 * WINDOW)]
    pages = [set(PAGES[window].tolist()) for window in windows]
    assert [len(found) for found in pages] == [WINDOW] * 5 + [3]
    assert len(set.union(*pages)) == len(np.unique(PAGES))
    first = PAGES[windows[0]]
    assert (np.diff(np.sort(np.unique(first))) > 1).any(), "the pages of a window are drawn"
    assert (np.diff(first) != 0).mean() > 0.9, "its samples are shuffled"


@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 20),
    world=st.integers(1, 6),
    data=st.data(),
)
def test_processes_divide_every_batch_and_miss_nothing(
    samples: int, batch: int, world: int, data: Any
) -> None:
    order = np.random.default_rng(samples).permutation(samples)
    steps = step_count(samples, batch)
    first = data.draw(st.integers(0, steps))
    parts = [part_of_batches(order, batch, rank, world, first) for rank in range(world)]
    sizes = [part_size(batch, rank, world) for rank in range(world)]
    assert sum(sizes) == batch
    assert max(sizes) - min(sizes) <= 1
    for step in range(first, steps):
        place = step - first
        together: list[npt.NDArray[np.int64]] = [
            part[place * size : (place + 1) * size] for part, size in zip(parts, sizes, strict=True)
        ]
        wanted = order[step * batch : (step + 1) * batch]
        assert np.array_equal(np.concatenate(together), wanted)
    assert sum(map(len, parts)) == len(order[first * batch :])
