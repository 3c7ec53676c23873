"""A source against its manifest: what is missing is said, before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import small_jpeg, tar_bytes

from prep import check
from prep.check import OddityFound, contradictions, look_inside
from prep.images import Settings
from prep.manifest import Archive, KnownClass, Manifest, Oddity, Split
from prep.plan import Options
from prep.program import UserError
from prep.resize import resize
from prep.sources import find_source
from prep.sources.listing import SPLITS, Source

WNIDS = ("n00000001", "n00000002")
MANIFEST = Manifest(
    name="two",
    title="Two Classes",
    homepage="",
    terms="",
    archives=(Archive("ILSVRC2012_img_train.tar", ("train",), "0" * 32, None),),
    splits={
        "train": Split(5, None, labelled=True),
        "val": Split(2, 1, labelled=True),
        "test": Split(9, None, labelled=False),
    },
    classes=tuple(
        KnownClass(wnid, f"name {wnid}", {"train": count, "val": 1}, optional=False)
        for wnid, count in zip(WNIDS, (3, 2), strict=True)
    ),
    oddities=(
        Oddity("CMYK", "", "train", ("n00000001_2.JPEG", "n00000002_9.JPEG"), 2),
        Oddity("grey", "", "train", (), 3),
    ),
)


def archives(root: Path, counts: tuple[int, ...] = (3, 2)) -> Source:
    tars = {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{n}.JPEG": small_jpeg(n) for n in range(count)})
        for wnid, count in zip(WNIDS, counts, strict=False)
    }
    root.mkdir(exist_ok=True)
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(tars))
    return find_source(root)


def tree(root: Path, counts: tuple[int, ...] = (3, 2), val: int = 1) -> Source:
    for split, numbers in (("train", counts), ("val", (val,) * len(counts))):
        for wnid, count in zip(WNIDS, numbers, strict=False):
            (root / split / wnid).mkdir(parents=True)
            for n in range(count):
                (root / split / wnid / f"{wnid}_{n}.JPEG").write_bytes(small_jpeg(n))
    return find_source(root)


def test_what_agrees_has_no_contradiction(tmp_path: Path) -> None:
    assert contradictions(tree(tmp_path), MANIFEST, SPLITS) == []


def test_missing_pictures_classes_and_splits_are_said(tmp_path: Path) -> None:
    found = contradictions(tree(tmp_path / "a", counts=(3, 1)), MANIFEST, SPLITS)
    assert found[0] == "train has 4 images instead of 5"
    assert "n00000002 (name n00000002) 1 instead of 2" in found[1]
    found = contradictions(tree(tmp_path / "b", counts=(3,)), MANIFEST, SPLITS)
    assert found[0] == "1 of the 2 classes of two missing: n00000002 (name n00000002)"
    only_train = contradictions(archives(tmp_path / "c"), MANIFEST, SPLITS)
    assert only_train == ["split val missing: two has 2 images there"]
    assert contradictions(archives(tmp_path / "c"), MANIFEST, ("train",)) == []


def test_archives_are_counted_by_looking_inside(tmp_path: Path) -> None:
    source = archives(tmp_path, counts=(2, 2))
    assert contradictions(source, MANIFEST, ("train",)) == []  # names of class tars alone
    contents = look_inside(source, MANIFEST, 1)
    assert contents.counts["train"].tolist() == [2, 2]
    found = contradictions(source, MANIFEST, ("train",), contents.counts)
    assert found[0] == "train has 4 images instead of 5"


def test_pictures_of_a_test_split_without_labels_are_counted(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "test").mkdir()
    for n in range(9):
        (tmp_path / "test" / f"{n}.JPEG").write_bytes(small_jpeg(n))
    assert contradictions(find_source(tmp_path), MANIFEST, SPLITS) == []
    (tmp_path / "test" / "8.JPEG").unlink()
    found = contradictions(find_source(tmp_path), MANIFEST, SPLITS)
    assert found == ["test has 8 images instead of 9"]


def test_a_source_without_manifest_is_refused_for_its_own_gaps(tmp_path: Path) -> None:
    source = tree(tmp_path)
    (tmp_path / "val" / "other").mkdir()
    (tmp_path / "val" / "other" / "1.JPEG").write_bytes(small_jpeg(0))
    check.refuse_contradictions(source, None, SPLITS)
    source = find_source(tmp_path)
    with pytest.raises(UserError, match="is not whole: 1 picture of val is of 1 class that train"):
        check.refuse_contradictions(source, None, SPLITS)
    check.refuse_contradictions(source, None, ("train",))


def test_known_odd_paths_are_looked_for_on_disk(tmp_path: Path) -> None:
    odd = (Oddity("folder", "", "train", ("n00000001/greg", "n00000002/none"), 2),)
    manifest = dataclasses.replace(MANIFEST, oddities=odd)
    source = tree(tmp_path)
    (tmp_path / "train" / "n00000001" / "greg").mkdir()
    assert look_inside(source, manifest, 1).oddities == [OddityFound("folder", "train", 1, 2)]


def test_classes_get_the_names_of_a_manifest_that_knows_them(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n01443537"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "1.jpg").write_bytes(b"x")
    source = find_source(tmp_path)
    assert check.named(source, None).names == ("tench", "goldfish")
    told = dataclasses.replace(source, names=("n01440764", "my fish"))
    assert check.named(told, None).names == ("tench", "my fish")
    assert check.named(tree(tmp_path / "other"), None).names == WNIDS


@pytest.mark.parametrize("jobs", [1, 2])
def test_known_odd_files_are_looked_for(tmp_path: Path, jobs: int) -> None:
    for source in (tree(tmp_path / "tree"), archives(tmp_path / "archives")):
        assert look_inside(source, MANIFEST, jobs).oddities == [OddityFound("CMYK", "train", 1, 2)]


def test_odd_files_are_known_by_hugging_face_s_names_too(tmp_path: Path) -> None:
    source = tree(tmp_path)
    train = tmp_path / "train" / WNIDS[0]
    (train / f"{WNIDS[0]}_2.JPEG").rename(train / f"{WNIDS[0]}_2_{WNIDS[0]}.JPEG")
    found = look_inside(find_source(source.root), MANIFEST, 1).oddities
    assert found == [OddityFound("CMYK", "train", 1, 2)]


def test_a_damaged_class_tar_is_found(tmp_path: Path) -> None:
    source = archives(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    data = bytearray(path.read_bytes())
    data[512 + 10] ^= 1  # in the first header of the first class tar
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"n00000001\.tar is damaged.*get the archive again"):
        look_inside(source, None, 1)


def test_md5s_are_compared(tmp_path: Path) -> None:
    source = archives(tmp_path)
    right = hashlib.md5((tmp_path / "ILSVRC2012_img_train.tar").read_bytes()).hexdigest()
    archive = dataclasses.replace(MANIFEST.archives[0], md5=right)
    whole = dataclasses.replace(MANIFEST, archives=(archive,))
    assert list(check.check_md5s(source, whole)) == [("ILSVRC2012_img_train.tar", True)]
    assert list(check.check_md5s(source, MANIFEST)) == [("ILSVRC2012_img_train.tar", False)]


def test_the_manifest_is_found_by_structure_or_by_classes(tmp_path: Path) -> None:
    found = check.manifest_of(archives(tmp_path / "archives"))
    assert found is not None
    assert found.name == "imagenet-1k"
    assert check.manifest_of(tree(tmp_path / "tree")) is None
    for name in ("airplane", "bird", "cat", "deer", "dog"):
        (tmp_path / "some" / name).mkdir(parents=True)
        (tmp_path / "some" / name / "1.png").write_bytes(b"x")
    found = check.manifest_of(find_source(tmp_path / "some"))
    assert found is not None
    assert found.name == "cifar-10"


def test_a_refusal_names_the_first_and_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"contradicts Two Classes: .* \(and 1 more\); `prep"):
        check.refuse_contradictions(tree(tmp_path, counts=(3, 1)), MANIFEST, SPLITS)


def test_resize_counts_what_archives_held(tmp_path: Path) -> None:
    """A class tar with fewer pictures than known shows only when it has been read."""
    source = archives(tmp_path / "src", counts=(3, 1))
    options = Options(Settings(side=16), jobs=1, expected=MANIFEST)
    with pytest.raises(UserError, match="contradicts Two Classes: train has 4 images"):
        resize(source, tmp_path / "out", options)
    assert not (tmp_path / "out" / "train.json").exists()
    (summary,) = resize(source, tmp_path / "out", dataclasses.replace(options, expected=None))
    assert summary.samples == 4
    full = archives(tmp_path / "full")
    assert resize(full, tmp_path / "out2", options)[0].samples == 5


def test_what_may_be_a_slip_is_noted(tmp_path: Path) -> None:
    whole = tree(tmp_path / "whole")
    assert check.notes(whole, "--x") == []
    alone = whole.keep(("train",))
    assert check.notes(alone, "--x") == ["no validation split; --x would make one of train"]
    assert check.notes(alone, "") == []
    assert check.notes(whole.keep(("val",)), "--x") == []
    one = tree(tmp_path / "one", counts=(3,))
    assert check.notes(one, "--x") == [
        f"there is one class only, {WNIDS[0]}; is {one.root} the folder above the class folders?"
    ]


def test_classes_without_a_validation_picture_are_noted(tmp_path: Path) -> None:
    for number in range(5):
        for split in ("train", "val"):
            (tmp_path / split / f"c{number}").mkdir(parents=True)
        (tmp_path / "train" / f"c{number}" / "1.jpg").write_bytes(b"x")
    (tmp_path / "val" / "c4" / "1.jpg").write_bytes(b"x")
    said = "4 classes of train have no picture in val: c0, c1, c2, ..."
    assert check.notes(find_source(tmp_path), "") == [said]
    for number in (0, 1, 2):
        (tmp_path / "val" / f"c{number}" / "1.jpg").write_bytes(b"x")
    said = "1 class of train has no picture in val: c3"
    assert check.notes(find_source(tmp_path), "") == [said]


def test_of_archives_nothing_is_noted_that_only_reading_tells(tmp_path: Path) -> None:
    assert check.notes(archives(tmp_path), "--x") == []  # nor can they be divided


def test_counts_are_of_every_class_even_an_empty_one(tmp_path: Path) -> None:
    contents = look_inside(tree(tmp_path, val=1), None, 1)
    assert np.array_equal(contents.counts["train"], [3, 2])
    assert contents.oddities == []
