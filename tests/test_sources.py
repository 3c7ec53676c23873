"""Which pictures a folder holds, which class each has, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources import find_source
from prep.sources.listing import Skipped, Source


def fill(root: Path, *names: str) -> Path:
    """Files of ten bytes; the listing looks at names and sizes alone."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0123456789")
    return root


def paths(source: Source, split: str = "train") -> list[str]:
    return source.splits[split].listing.names


def labels(source: Source, split: str = "train") -> list[int]:
    found: list[int] = source.splits[split].listing.labels.tolist()
    return found


# --------------------------------------------------------------------------- layouts


def test_a_source_with_splits(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, "val/b/3.jpg", "train/b/2.jpg", "train/a/1.jpg"))
    assert list(source.splits) == ["train", "val"]
    assert paths(source) == ["train/a/1.jpg", "train/b/2.jpg"]
    assert paths(source, "val") == ["val/b/3.jpg"]
    assert labels(source, "val") == [1]
    assert source.splits["train"].listing.places["size"].tolist() == [10, 10]


def test_class_folders_alone_are_the_training_split(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, "cat/1.png", "dog/1.png"))
    assert list(source.splits) == ["train"]
    assert paths(source) == ["cat/1.png", "dog/1.png"]


def test_a_validation_split_alone_is_listed(tmp_path: Path) -> None:
    assert list(find_source(fill(tmp_path, "val/a/1.jpg")).splits) == ["val"]


def test_a_test_split_is_listed_with_labels_or_without(tmp_path: Path) -> None:
    fill(tmp_path / "labelled", "train/a/1.jpg", "test/a/2.jpg")
    fill(tmp_path / "unlabelled", "train/a/1.jpg", "test/2.jpg")
    assert list(find_source(tmp_path / "labelled").splits) == ["train", "test"]
    unlabelled = find_source(tmp_path / "unlabelled")
    assert paths(unlabelled, "test") == ["test/2.jpg"]
    assert labels(unlabelled, "test") == [UNLABELLED]


def test_pictures_may_lie_in_subfolders(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, "train/a/images/1.JPEG", "train/a/2.JPEG"))
    assert paths(source) == ["train/a/2.JPEG", "train/a/images/1.JPEG"]
    assert source.classes == ("a",)


def test_a_label_is_the_rank_of_the_folder_s_name_in_every_split(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, *(f"train/{c}/1.jpg" for c in "cab"), "val/c/1.jpg"))
    assert source.classes == ("a", "b", "c")
    assert labels(source) == [0, 1, 2]
    assert labels(source, "val") == [2]


def test_the_order_is_by_label_then_name_whatever_the_disk_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{c}/{n}.jpg" for c in ("a", "b") for n in ("1", "10", "2")]
    fill(tmp_path, *names)
    scandir = os.scandir

    class Backwards(list[os.DirEntry[str]]):
        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def reversed_scandir(path: Path) -> Backwards:
        return Backwards(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

    forwards = find_source(tmp_path)
    monkeypatch.setattr(os, "scandir", reversed_scandir)
    backwards = find_source(tmp_path)
    assert backwards.fingerprint("train") == forwards.fingerprint("train")
    assert paths(backwards) == paths(forwards) == names


def test_a_linked_class_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "far", "1.jpg")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").symlink_to(tmp_path / "far")
    assert paths(find_source(tmp_path / "src")) == ["a/1.jpg"]


@pytest.mark.parametrize("target", ["a", "a/deep", "", ".."])
def test_a_link_back_into_a_folder_that_it_lies_in_is_not_followed(
    tmp_path: Path, target: str
) -> None:
    root = fill(tmp_path / "src", "a/1.jpg", "a/deep/2.jpg", "b/3.jpg")
    (root / "a" / "deep" / "again").symlink_to(root / target)
    (root / "b" / "again").symlink_to(root)
    assert paths(find_source(root)) == ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg"]


def test_a_source_named_by_way_of_a_class_is_whole(tmp_path: Path) -> None:
    fill(tmp_path / "src", "train/a/0.jpg", "train/b/1.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(tmp_path / "src" / "train")
    for root in ("src/train/a/../..", "elsewhere/link/.."):
        assert len(find_source(tmp_path / root).splits["train"].listing) == 2


def test_a_folder_linked_twice_side_by_side_is_listed_twice(tmp_path: Path) -> None:
    fill(tmp_path / "far", "1.jpg")
    for name in ("x", "y"):
        (tmp_path / "src" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / "a" / name).symlink_to(tmp_path / "far")
    assert paths(find_source(tmp_path / "src")) == ["a/x/1.jpg", "a/y/1.jpg"]


def test_a_link_to_itself_is_rejected_when_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg")
    for name in ("2.jpg", "folder"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "a" / name)
    (tmp_path / "b").symlink_to(tmp_path / "b")
    source = find_source(tmp_path)
    assert source.classes == ("a",)
    _, second = source.splits["train"].read(tmp_path, source.splits["train"].listing)
    assert second.name == "a/2.jpg"
    assert str(second.reason).startswith("cannot be read: Too many levels of symbolic links")


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a/" + "b/" * 64 + "1.jpg")
    assert len(paths(find_source(tmp_path))) == 1
    fill(tmp_path, "a/" + "b/" * 65 + "1.jpg")
    with pytest.raises(UserError, match="lies more than 64 folders deep in a class; move"):
        find_source(tmp_path)


def test_a_dangling_link_is_listed_so_that_it_is_rejected(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("nowhere")
    listing = find_source(tmp_path).splits["train"].listing
    sizes = listing.places["size"].tolist()
    assert list(zip(listing.names, sizes, strict=True)) == [("a/1.jpg", 10), ("a/2.jpg", 0)]


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    source = find_source(tmp_path)
    assert paths(source) == ["a/1.jpg"]
    assert source.skipped == Skipped(1, "a/2.jpg")


# --------------------------------------------------------------------------- what is no picture


def test_hidden_files_and_other_endings_are_counted_not_listed(tmp_path: Path) -> None:
    source = find_source(
        fill(tmp_path, "a/1.jpg", "a/._1.jpg", "a/.DS_Store", "a/boxes.txt", "a/s/noending")
    )
    assert paths(source) == ["a/1.jpg"]
    assert source.skipped.count == 4
    assert source.skipped.hidden == ()
    assert source.skipped.first in {"a/._1.jpg", "a/.DS_Store", "a/boxes.txt", "a/s/noending"}


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, "a/1.jpg", ".thumbnails/1.jpg", ".git/x/config"))
    assert source.classes == ("a",)
    assert source.skipped == Skipped(0, "", (".thumbnails",))


def test_pictures_in_a_hidden_folder_of_a_class_are_passed_over(tmp_path: Path) -> None:
    source = find_source(
        fill(tmp_path, "a/1.jpg", "a/b.c/2.jpg", "a/.thumbs/1.jpg", "a/b/.x/y/1.jpg")
    )
    assert paths(source) == ["a/1.jpg", "a/b.c/2.jpg"]
    assert source.skipped.count == 2


@pytest.mark.parametrize("ending", ["JPEG", "jpg", "Png", "bmp", "gif", "webp", "TIF", "ppm"])
def test_the_endings_of_pictures_in_any_case(tmp_path: Path, ending: str) -> None:
    assert paths(find_source(fill(tmp_path, f"a/1.{ending}"))) == [f"a/1.{ending}"]


# --------------------------------------------------------------------------- names for people


def test_words_txt_names_the_classes(tmp_path: Path) -> None:
    fill(tmp_path, "n1/1.jpg", "n2/1.jpg")
    (tmp_path / "words.txt").write_text("n2\tgrüner Fink, bird\nno tab\nn9\tunused\n")
    assert find_source(tmp_path).names == ("n1", "grüner Fink, bird")


def test_a_words_txt_of_other_bytes_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "n1/1.jpg")
    (tmp_path / "words.txt").write_bytes(b"n1\t\xff\xff\n")
    with pytest.raises(UserError, match=r"words\.txt cannot be read"):
        find_source(tmp_path)


# --------------------------------------------------------------------------- fingerprints


def test_the_fingerprint_is_of_names_and_sizes_and_not_of_place(tmp_path: Path) -> None:
    names = ("train/a/1.jpg", "train/b/1.jpg", "val/a/9.jpg")
    first = find_source(fill(tmp_path / "x", *names))
    assert find_source(fill(tmp_path / "y", *names)).fingerprint("train") == first.fingerprint(
        "train"
    )
    assert first.fingerprint("train") != first.fingerprint("val")


@pytest.mark.parametrize("change", ["size", "name", "more", "fewer", "class"])
def test_the_fingerprint_changes_with_the_listing(tmp_path: Path, change: str) -> None:
    fill(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    before = find_source(tmp_path).fingerprint("train")
    if change == "size":
        (tmp_path / "a/1.jpg").write_bytes(b"longer than ten bytes")
    elif change == "name":
        (tmp_path / "a/1.jpg").rename(tmp_path / "a/0.jpg")
    elif change == "more":
        fill(tmp_path, "a/3.jpg")
    elif change == "fewer":
        (tmp_path / "a/1.jpg").unlink()
    else:
        (tmp_path / "b").rename(tmp_path / "c")
    assert find_source(tmp_path).fingerprint("train") != before


def test_the_fingerprint_of_a_split_changes_with_the_labels(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, "train/b/1.jpg", "val/b/1.jpg"))
    fill(tmp_path, "train/a/1.jpg")
    assert find_source(tmp_path).fingerprint("val") != source.fingerprint("val")


def test_a_file_name_of_other_bytes_is_listed(tmp_path: Path) -> None:
    fill(tmp_path, os.fsdecode(b"a/caf\xe9.jpg"))
    source = find_source(tmp_path)
    assert [os.fsencode(path) for path in paths(source)] == [b"a/caf\xe9.jpg"]
    assert len(source.fingerprint("train")) == 64


# --------------------------------------------------------------------------- refusals


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        find_source(tmp_path / "nowhere")


def test_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"file is not a folder"):
        find_source(fill(tmp_path, "file") / "file")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train/a/1.jpg", "valid/a/2.jpg"), "valid looks like .*; rename it to val, or take"),
        (("train/a/1.jpg", "Val/a/2.jpg"), "Val looks like .*; rename it to val, or take"),
        (("train/a/1.jpg", "val/a/2.jpg", "validation/3.jpg"), "validation looks .* it, or take"),
        (("val/a/1.jpg", "Training/a/2.jpg"), "Training looks like a split, but"),
        (("train/a/1.jpg", "TESTING/2.jpg"), "TESTING looks like a split, but"),
        (("Train/a/1.jpg", "Val/a/2.jpg"), "Train looks like .*; rename it to train, or"),
        (("training/a/1.jpg", "validation/a/2.jpg"), "training looks .* train, or take it away"),
        (("training/a/1.jpg",), "training looks like a split, but"),
    ],
)
def test_a_folder_called_nearly_as_a_split_is_refused(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        find_source(fill(tmp_path, *names))
    if (tmp_path / "train").exists():
        with pytest.raises(UserError, match=said):
            find_source(tmp_path, ("train",))


def test_a_class_may_be_called_nearly_as_a_split(tmp_path: Path) -> None:
    among = find_source(fill(tmp_path / "one", "training/1.jpg", "cooking/1.jpg"))
    assert among.classes == ("cooking", "training")
    below = find_source(fill(tmp_path / "two", "train/Test/1.jpg", "train/valid/2.jpg"))
    assert below.classes == ("Test", "valid")
    others = find_source(fill(tmp_path / "three", "train/a/1.jpg", "dev/1.jpg", "boxes/1.jpg"))
    assert others.classes == ("a",)


@pytest.mark.parametrize("names", [(), ("1.jpg",), (".hidden/1.jpg",)])
def test_no_class_folders_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"has no class folders; expected"):
        find_source(fill(tmp_path, *names))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_class_folders_is_refused_not_passed_over(
    tmp_path: Path, split: str
) -> None:
    other = {"train": "val", "val": "train"}[split]
    with pytest.raises(UserError, match=rf"/{split} holds no class folders; expected"):
        find_source(fill(tmp_path, f"{other}/a/1.jpg", f"{split}/ILSVRC2012_1.JPEG"))


@pytest.mark.parametrize("empty", ["train", "val"])
def test_a_split_without_pictures_is_refused(tmp_path: Path, empty: str) -> None:
    other = {"train": "val", "val": "train"}[empty]
    fill(tmp_path, f"{other}/a/1.jpg", f"{empty}/a/readme.txt")
    with pytest.raises(UserError, match=rf"holds no pictures for {empty}; known are \.avif"):
        find_source(tmp_path)


def test_a_class_without_training_pictures_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.jpg", "train/b/readme.txt", "train/c/x.txt", "val/a/1.jpg")
    with pytest.raises(UserError, match=r"2 of 3 classes have no picture in train of .*: b, c;"):
        find_source(tmp_path)


def test_pictures_of_classes_that_train_does_not_have_are_a_gap(tmp_path: Path) -> None:
    fill(tmp_path, "train/b/1.jpg", "val/a/1.jpg", "val/a/2.jpg", "val/b/1.jpg", "val/c/1.jpg")
    source = find_source(tmp_path)
    assert source.classes == ("b",)
    assert paths(source, "val") == ["val/b/1.jpg"]
    assert source.splits["train"].gaps == ()
    assert source.splits["val"].gaps == (
        "3 pictures of val are of 2 classes that train does not have: a, c",
    )
    shutil.rmtree(tmp_path / "val" / "b")
    with pytest.raises(UserError, match="no pictures for val; 3 pictures of val are of 2 classes"):
        find_source(tmp_path)


def test_a_class_folder_of_other_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has a class 'caf.*', a name that is not UTF-8"):
        find_source(fill(tmp_path, os.fsdecode(b"caf\xe9/1.jpg")))


def test_a_source_is_a_value(tmp_path: Path) -> None:
    source = find_source(fill(tmp_path, "a/1.jpg"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.kind = "other"  # type: ignore[misc]


def test_the_folder_around_a_data_set_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "SRC" / "tiny" / split / "cat").mkdir(parents=True)
        (tmp_path / "SRC" / "tiny" / split / "cat" / "1.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"nothing but tiny, which has train and val in it; give"):
        find_source(tmp_path / "SRC")
    assert find_source(tmp_path / "SRC" / "tiny").classes == ("cat",)
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "cat" / "1.jpg").write_bytes(b"x")
    assert find_source(tmp_path / "one").classes == ("cat",)
