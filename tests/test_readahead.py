"""What the system is told before a record is read: each epoch the same, and in time."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train import readahead, reading
from train.dataset import Dataset, open_dataset
from train.epoch_order import WINDOW, OrderName, epoch_order
from train.loader import Batches
from train.readahead import BATCHES, PagesAhead, RecordsAhead

SAMPLES, BATCH = 18, 4


@pytest.fixture(scope="module")
def train_set(betons: Path) -> Dataset:
    return open_dataset(betons / "train.beton")


def test_the_records_of_a_later_batch_are_asked_for() -> None:
    batches = [np.array([5, 3]), np.array([1, 4]), np.array([0, 7]), np.array([2])]
    reading_of: Any = types.SimpleNamespace(ahead=None)
    ahead = RecordsAhead(reading_of, batches)
    told = []
    for number in range(len(batches)):
        ahead.start_batch(number)
        told.append(reading_of.ahead.tolist())
    assert told == [[0, 7], [2], [], []]


def test_every_page_is_asked_for_once_before_it_is_read_and_not_long_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    monkeypatch.setattr(readahead, "will_need", lambda _file, offset, _size: told.append(offset))
    pages = np.repeat(np.arange(40), 25)
    order = epoch_order("quasi-random", pages, 3, 0)
    batches = [order[start : start + 64] for start in range(0, len(order), 64)]
    reading_of: Any = types.SimpleNamespace(file=0)
    ahead = PagesAhead(reading_of, batches, pages, 1)
    for number, batch in enumerate(batches):
        ahead.start_batch(number)
        assert set(pages[batch]) <= set(told)
        assert len(told) <= WINDOW + np.ceil(40 * (number + 1) / len(batches))
    assert sorted(told) == list(range(40))


@pytest.mark.parametrize("whole", [True, False], ids=["whole epochs", "broken off"])
@pytest.mark.parametrize("order", ["random", "quasi-random", "sequential"])
def test_every_epoch_is_read_ahead_as_the_first(
    train_set: Dataset, monkeypatch: pytest.MonkeyPatch, order: OrderName, whole: bool
) -> None:
    """An epoch's end does not reach into the next one."""
    asked: list[int] = []
    pages: list[int] = []

    def read(stored: Any, samples: Any, ahead: Any, *others: Any) -> None:
        asked.append(len(ahead))
        kernel(stored, samples, ahead, *others)

    kernel: Any = reading.read_samples
    monkeypatch.setattr(reading, "read_samples", read)
    monkeypatch.setattr(readahead, "will_need", lambda _file, offset, _size: pages.append(offset))
    batches = Batches(train_set, BATCH, 1, order=order)
    only_page = int(train_set.pages[0]) * train_set.page_size
    wanted = [0] * 5 if order != "random" else [4] * 2 + [2] + [0] * BATCHES
    for epoch in range(3):
        if not whole:
            next(batches.epoch(0, 3 + epoch))
        asked.clear()
        pages.clear()
        found = [sample for batch in batches.epoch(0, epoch) for sample in batch.samples.tolist()]
        assert sorted(found) == list(range(SAMPLES))
        assert asked == wanted
        assert pages == ([only_page] if order == "quasi-random" else [])


def test_a_process_without_samples_reads_nothing_ahead(train_set: Dataset) -> None:
    """Of two processes and a last batch of one sample, from there on."""
    batches = Batches(train_set, 17, 1, order="quasi-random", rank=1, world=2)
    assert [len(batch.samples) for batch in batches.epoch(0, 0, first_step=1)] == [0]
