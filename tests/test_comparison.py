"""Which manifest a source has, and which contradictions are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_manifest import NAMES, SMALL, counts, folders, written

from prep.comparison import compare, first_of, match, published_statistics
from prep.manifest import Manifest, load


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    return load(written(tmp_path, SMALL))


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_recognised_by_its_classes(name: str) -> None:
    manifest = load(name)
    assert match(folders(manifest)) is manifest


def test_imagenet_with_classes_missing_is_still_imagenet() -> None:
    manifest = load("imagenet-1k")
    assert match(folders(manifest)[500:]) is manifest
    assert match(folders(manifest)[501:]) is None


def test_other_classes_are_of_no_manifest() -> None:
    assert match([]) is None
    assert match(["a", "b"]) is None
    assert match([*folders(load("imagenet-1k")), "zebra"]) is None


def test_statistics_are_published_of_the_whole_of_imagenet_only() -> None:
    classes = folders(load("imagenet-1k"))
    (authors,) = published_statistics(classes)
    assert authors.channel_mean == (127.305, 119.715, 104.913)  # input_meta of cuda-convnet2
    assert authors.standard_deviations == (121.780, 37.094, 19.721)
    axes = np.array(authors.axes)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=2e-4)
    assert published_statistics(classes[1:]) == ()
    assert published_statistics(folders(load("cifar-10"))) == ()
    assert published_statistics(["a", "b"]) == ()


# --------------------------------------------------------------------------- compare


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_data_set_has_no_contradiction(name: str) -> None:
    manifest = load(name)
    present = {
        split: counts(manifest, split) if all(split in c.images for c in manifest.classes) else None
        for split in manifest.splits
    }
    archives = {archive.file: archive.bytes or 1 for archive in manifest.archives}
    assert compare(manifest, folders(manifest), present, archives) == []


def test_a_split_without_labels_may_be_left_out(small: Manifest) -> None:
    assert compare(small, ["a", "b"], {"train": [3, 2], "val": [2, 2]}, {}) == []
    assert compare(small, ["a", "b"], {"train": [3, 2], "val": None, "test": None}, {}) == []


def test_missing_and_foreign_classes_are_named(small: Manifest) -> None:
    assert compare(small, ["a", "x", "y", "z", "zz"], {"train": None, "val": None}, {}) == [
        "1 of the 2 classes of small missing: b (bee)",
        "4 of 5 classes unknown to small: x, y, z, ...",
    ]


def test_missing_and_foreign_splits_are_named(small: Manifest) -> None:
    assert compare(small, ["a", "b"], {"train": [3, 2], "dev": [1, 1]}, {}) == [
        "split val missing: small has 4 images there",
        "split dev unknown to small, which has train, val, test",
    ]


def test_other_numbers_of_images_are_named() -> None:
    manifest = load("imagenet-1k")
    train = counts(manifest, "train")
    train[:4] = [1299, 1300, 1300, 0]
    assert compare(manifest, folders(manifest), {"train": train, "val": [50] * 1000}, {}) == [
        "train has 1,279,866 images instead of 1,281,167",
        "train has other numbers of images in 2 of 1000 classes: n01440764 (tench) 1,299 instead "
        "of 1,300, n01491361 (tiger shark) 0 instead of 1,300",
    ]


def test_equal_totals_hide_no_difference(small: Manifest) -> None:
    assert compare(small, ["a", "b"], {"train": [2, 3], "val": [2, 2]}, {}) == [
        "train has other numbers of images in 2 of 2 classes: a (ant) 2 instead of 3, "
        "b (bee) 3 instead of 2"
    ]


def test_a_missing_class_is_not_said_to_have_other_images_too(small: Manifest) -> None:
    assert compare(small, ["a"], {"train": [3], "val": [2]}, {}) == [
        "1 of the 2 classes of small missing: b (bee)",
        "train has 3 images instead of 5",
        "val has 2 images instead of 4",
    ]


def test_an_optional_class_may_be_left_out() -> None:
    manifest = load("caltech-256")
    present = folders(manifest)[:-1]
    images = [100] * 255 + [29_780 - 25_500]
    assert compare(manifest, present, {"train": images}, {}) == []
    images[0] += 1
    assert compare(manifest, present, {"train": images}, {}) == [
        "train has 29,781 images instead of 29,780"
    ]


def test_an_archive_of_another_size_is_named_and_other_files_are_not(small: Manifest) -> None:
    present = {"train": [3, 2], "val": [2, 2]}
    assert compare(small, ["a", "b"], present, {"small.tar": 9, "notes.txt": 1}) == [
        "small.tar has 9 bytes instead of 10"
    ]


def test_the_first_contradiction_and_how_many_follow() -> None:
    assert first_of(["a"]) == "a"
    assert first_of(["a", "b", "c"]) == "a (and 2 more)"
