"""A validation split drawn from train: by class, by seed, whatever the order of the source."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from prep.program import UserError
from prep.sources import find_source
from prep.sources.divide import with_validation
from prep.sources.listing import Source, Split


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name, count in (("a", 10), ("b", 25), ("c", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"x")
    return find_source(tmp_path)


def names(source: Source, split: str) -> set[str]:
    return set(source.splits[split].listing.names)


def test_each_class_gives_its_share_and_nothing_is_lost(source: Source) -> None:
    divided = with_validation(source, 0.2, 0)
    assert list(divided.splits) == ["train", "val"]
    counts = divided.splits["val"].counts(3)
    assert counts is not None
    assert counts.tolist() == [2, 5, 1]  # at least one, never all
    assert names(divided, "train") | names(divided, "val") == names(source, "train")
    assert not names(divided, "train") & names(divided, "val")
    assert divided.choices["val_fraction"] == "0.2 of train with seed 0"


def test_the_seed_decides(source: Source) -> None:
    assert names(with_validation(source, 0.2, 0), "val") == names(
        with_validation(source, 0.2, 0), "val"
    )
    assert names(with_validation(source, 0.2, 0), "val") != names(
        with_validation(source, 0.2, 1), "val"
    )


def test_the_order_of_the_source_does_not_matter(source: Source) -> None:
    train = source.splits["train"]
    turned = train.listing.take(np.random.default_rng(0).permutation(len(train.listing)))
    shuffled = dataclasses.replace(source, splits={"train": Split(turned, train.read)})
    assert names(with_validation(shuffled, 0.3, 4), "val") == names(
        with_validation(source, 0.3, 4), "val"
    )


@pytest.mark.parametrize("wanted", ["train", "val"])
def test_what_is_wanted_does_not_change_the_division(source: Source, wanted: str) -> None:
    kept = with_validation(source, 0.2, 0, (wanted,))
    assert list(kept.splits) == [wanted]
    divided = with_validation(source, 0.2, 0)
    assert kept.fingerprint(wanted) == divided.fingerprint(wanted)
    with pytest.raises(
        UserError, match="has no split test; it has train and val; give another --split"
    ):
        with_validation(source, 0.2, 0, ("test",))


def test_units_and_what_tells_the_content_are_kept(source: Source) -> None:
    train = source.splits["train"]
    bounds = np.array([0, 10, 12, 37])
    train = dataclasses.replace(train, bounds=bounds, contents=("sha256",))
    divided = with_validation(dataclasses.replace(source, splits={"train": train}), 0.2, 0)
    for split in divided.splits.values():
        assert split.contents == ("sha256",)
        ends = split.unit_bounds()
        assert (ends[0], ends[-1]) == (0, len(split.listing))
        parts = [split.listing.part(*pair).names for pair in itertools.pairwise(ends.tolist())]
        before = [set(train.listing.part(*pair).names) for pair in itertools.pairwise(bounds)]
        assert all(sum(unit >= set(part) for unit in before) == 1 for part in parts)


def test_a_test_split_stays(source: Source) -> None:
    with_test = dataclasses.replace(source, splits=source.splits | {"test": source.splits["train"]})
    divided = with_validation(with_test, 0.2, 0)
    assert set(divided.splits) == {"train", "val", "test"}
    assert names(divided, "test") == names(source, "train")


def test_what_cannot_be_divided_is_refused(source: Source) -> None:
    divided = with_validation(source, 0.2, 0)
    with pytest.raises(UserError, match=r"has a validation split; leave out --val-fraction 0\.2"):
        with_validation(divided, 0.2, 0)
    (source.root / "d").mkdir()
    (source.root / "d" / "1.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="class d has one picture"):
        with_validation(find_source(source.root), 0.2, 0)
    archives = {"train": dataclasses.replace(source.splits["train"], of_archives=True)}
    with pytest.raises(UserError, match="no list of training pictures"):
        with_validation(dataclasses.replace(source, splits=archives), 0.2, 0)
