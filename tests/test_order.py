"""The order of samples on disk: a stable sort by class, or one permutation of it from a seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.beton import open_beton
from prep.handover import UNLABELLED, Card, read_card
from prep.order import BY_CLASS, Order, labels_of
from prep.prepared import open_prepared
from prep.write import write_beton

some_labels = st.lists(st.integers(0, 4), max_size=50).map(lambda labels: np.array(labels, int))
orders = st.just(BY_CLASS) | st.builds(Order, st.just("shuffled"), st.integers(0, 2**64))


@given(labels=some_labels, order=orders)
def test_every_sample_comes_once(labels: np.ndarray, order: Order) -> None:
    assert sorted(order.of(labels).tolist()) == list(range(len(labels)))


@given(labels=some_labels)
def test_by_class_keeps_the_order_within_a_class(labels: np.ndarray) -> None:
    pairs = [(int(labels[sample]), sample) for sample in BY_CLASS.of(labels).tolist()]
    assert pairs == sorted(pairs)


def test_a_shuffle_is_the_same_on_every_machine() -> None:
    """NumPy keeps PCG64's raw numbers; this golden was made with NumPy 2.4."""
    shuffled = Order("shuffled", 7).of(np.zeros(10, np.int64))
    assert shuffled.tolist() == [6, 3, 4, 9, 0, 2, 8, 7, 5, 1]
    other = Order("shuffled", 8).of(np.zeros(10, np.int64))
    assert other.tolist() != shuffled.tolist()


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_a_shuffled_beton_holds_the_same_samples_in_the_seed_s_order(
    prepared_set: Path, betons: Path, tmp_path: Path, mode: str
) -> None:
    order = Order("shuffled", 3)
    card = write_beton(prepared_set / "train", tmp_path / "a.beton", mode, 1, order).card
    write_beton(prepared_set / "train", tmp_path / "b.beton", mode, 3, order)
    assert (tmp_path / "a.beton").read_bytes() == (tmp_path / "b.beton").read_bytes()
    assert (card.order, card.seed) == ("shuffled", 3)
    assert card.pixels_id == read_card(betons / "train.json").pixels_id
    split = open_prepared(prepared_set / "train")
    places = order.of(split.labels)
    opened = open_beton(tmp_path / "a.beton")
    assert np.array_equal(opened.labels, split.labels[places])
    assert len(np.unique(opened.labels[:6])) > 1
    if mode == "jpg":
        assert np.array_equal(opened.layout.size, split.sizes[places])


def test_the_card_tells_every_label(prepared_set: Path, tmp_path: Path) -> None:
    for order in (BY_CLASS, Order("shuffled", 5)):
        card = write_beton(prepared_set / "train", tmp_path / "a.beton", "jpg", 1, order).card
        assert np.array_equal(labels_of(card), open_beton(tmp_path / "a.beton").labels)
    assert read_card(tmp_path / "a.json") == card


def test_without_labels_every_label_is_minus_one(betons: Path) -> None:
    card: Card = read_card(betons / "train.json")
    classes = tuple(dataclasses.replace(entry, samples=0) for entry in card.classes)
    unlabelled = dataclasses.replace(card, classes=classes)
    assert labels_of(unlabelled).tolist() == [UNLABELLED] * 18
