"""Tiny ImageNet, Caltech-256 and Kaggle's ImageNet, in the folders they come in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources import find_source
from prep.sources.listing import Skipped, Source


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def entries(source: Source, split: str) -> dict[str, int]:
    listing = source.splits[split].listing
    return dict(zip(listing.names, listing.labels.tolist(), strict=True))


# --------------------------------------------------------------------------- Tiny ImageNet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    fill(tmp_path, *(f"train/{w}/images/{w}_{i}.JPEG" for w in ("n2", "n1") for i in (0, 1)))
    fill(tmp_path, *(f"val/images/val_{i}.JPEG" for i in range(3)), "test/images/test_0.JPEG")
    fill(tmp_path, "train/n1/n1_boxes.txt")
    lines = ["val_0.JPEG\tn2\t0\t32\t44\t62", "val_1.JPEG\tn1\t0\t0\t1\t1", "val_2.JPEG\tn2\t1\t1"]
    (tmp_path / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "words.txt").write_text("n1\tgoldfish\nn2\ttailed frog\nn3\tother\n")
    return tmp_path


def test_tiny_imagenet(tiny: Path) -> None:
    source = find_source(tiny)
    assert source.kind == "Tiny ImageNet 200, as distributed"
    assert source.data_set == "tiny-imagenet-200"
    assert (source.classes, source.names) == (("n1", "n2"), ("goldfish", "tailed frog"))
    assert list(source.splits) == ["train", "val", "test"]
    assert entries(source, "train")["train/n2/images/n2_1.JPEG"] == 1
    assert entries(source, "val") == {
        "val/images/val_0.JPEG": 1,
        "val/images/val_1.JPEG": 0,
        "val/images/val_2.JPEG": 1,
    }
    assert entries(source, "test") == {"test/images/test_0.JPEG": UNLABELLED}
    assert source.skipped == Skipped()  # its annotations belong there
    fill(tiny, "train/n1/images/notes.txt")
    assert find_source(tiny).skipped == Skipped(1, "train/n1/images/notes.txt")


def test_tiny_imagenet_with_a_picture_that_no_line_names(tiny: Path) -> None:
    fill(tiny, "val/images/val_9.JPEG")
    with pytest.raises(UserError, match=r"val_annotations\.txt says nothing of val_9\.JPEG"):
        find_source(tiny)
    assert list(find_source(tiny, ("train",)).splits) == ["train"]


def test_tiny_imagenet_s_val_alone_has_train_s_classes(tiny: Path) -> None:
    assert entries(find_source(tiny, ("val",)), "val") == entries(find_source(tiny), "val")


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_tiny_imagenet_without_train_has_the_classes_of_wnids_txt(tiny: Path, left: str) -> None:
    (tiny / "wnids.txt").write_text("n2\nn1\n")
    whole = find_source(tiny)
    shutil.rmtree(tiny / "train")
    if left == "an empty folder":
        (tiny / "train").mkdir()
    source = find_source(tiny, ("val", "test"))
    assert (source.classes, source.names) == (whole.classes, whole.names)
    for split in ("val", "test"):
        assert entries(source, split) == entries(whole, split)


def test_tiny_imagenet_without_anything_that_tells_its_classes_is_refused(tiny: Path) -> None:
    shutil.rmtree(tiny / "train")
    with pytest.raises(UserError, match=r"neither train/<class>/ nor wnids\.txt.*put wnids\.txt"):
        find_source(tiny, ("val",))


def test_tiny_imagenet_s_val_sorted_into_class_folders(tiny: Path) -> None:
    for path in [tiny / "val/images/val_0.JPEG", tiny / "val/images/val_2.JPEG"]:
        path.rename(fill(tiny, "val/n2/images/x").joinpath("val/n2/images", path.name))
    shutil.rmtree(tiny / "val/images")
    assert list(entries(find_source(tiny), "val").values()) == [1, 1]
    shutil.rmtree(tiny / "train")
    assert find_source(tiny, ("val",)).classes == ("n2",)
    (tiny / "wnids.txt").write_text("n1\nn2")
    assert find_source(tiny, ("val",)).classes == ("n1", "n2")
    fill(tiny, "val/n7/1.JPEG")
    gap = "1 picture of val is of 1 class that train does not have: n7"
    assert find_source(tiny, ("val",)).splits["val"].gaps == (gap,)


# --------------------------------------------------------------------------- Caltech-256


@pytest.mark.parametrize("below", ["", "256_ObjectCategories/"])
@pytest.mark.parametrize("clutter", [False, True])
def test_caltech(tmp_path: Path, below: str, clutter: bool) -> None:
    names = ("001.ak47/001_0001.jpg", "056.dog/greg/x.jpg", "257.clutter/257_0001.jpg")
    fill(tmp_path, *(below + name for name in names), below + "056.dog/RENAME2")
    source = find_source(tmp_path, clutter=clutter)
    assert source.data_set == "caltech-256"
    assert source.classes == ("001.ak47", "056.dog", "257.clutter")[: 2 + clutter]
    assert source.names == ("ak47", "dog", "clutter")[: 2 + clutter]
    expected = {below + name: label for label, name in enumerate(names[: 2 + clutter])}
    assert entries(source, "train") == expected
    assert source.skipped == Skipped(1, below + "056.dog/RENAME2")


def test_one_folder_of_another_name_is_not_caltech(tmp_path: Path) -> None:
    fill(tmp_path, "001.ak47/1.jpg", "dog/1.jpg")
    assert find_source(tmp_path).kind == "class folders"


# --------------------------------------------------------------------------- Kaggle


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    data = tmp_path / "ILSVRC/Data/CLS-LOC"
    fill(data, "train/n2/n2_1.JPEG", "train/n1/n1_1.JPEG", "test/ILSVRC2012_test_00000001.JPEG")
    fill(data, *(f"val/ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2)))
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000002,n1 85 1 499 272 \n"
        "ILSVRC2012_val_00000001,n2 1 2 3 4 n2 5 6 7 8\n"
    )
    (tmp_path / "LOC_synset_mapping.txt").write_text("n1 tench, Tinca tinca\nn2 goldfish\n")
    return tmp_path


def test_kaggle_s_tree(kaggle: Path) -> None:
    source = find_source(kaggle)
    assert (source.kind, source.data_set) == ("ImageNet, Kaggle's tree", "imagenet-1k")
    assert source.names == ("tench, Tinca tinca", "goldfish")
    assert list(source.splits) == ["train", "val", "test"]
    val = "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_0000000"
    assert entries(source, "val") == {f"{val}1.JPEG": 1, f"{val}2.JPEG": 0}
    assert list(entries(source, "test").values()) == [UNLABELLED]


def test_kaggle_s_tree_without_the_solution_prepares_train_alone(kaggle: Path) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv is missing.*or give --split train"):
        find_source(kaggle)
    assert list(find_source(kaggle, ("train",)).splits) == ["train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no columns ImageId and PredictionString"),
        ("", "has no columns ImageId and PredictionString"),
        ("ImageId,PredictionString\nx," + "n" * 200_000, r"solution\.csv cannot be read as CSV"),
        ("ImageId," + "n" * 200_000, r"solution\.csv cannot be read as CSV .field larger"),
        ("ImageId,PredictionString\nx,n1\n", r"says nothing of ILSVRC2012_val_00000001\.JPEG"),
    ],
)
def test_a_solution_of_something_else_is_refused(kaggle: Path, text: str, message: str) -> None:
    (kaggle / "LOC_val_solution.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        find_source(kaggle)


def test_kaggle_s_val_has_more_classes_than_a_part_of_train(kaggle: Path) -> None:
    shutil.rmtree(kaggle / "ILSVRC/Data/CLS-LOC/train/n2")
    val = find_source(kaggle).splits["val"]
    assert [name[-12:] for name in val.listing.names] == ["0000002.JPEG"]
    assert val.gaps == ("1 picture of val is of 1 class that train does not have: n2",)
