"""WebDataset tars: keys, labels, splits by name, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from conftest import tar_bytes

from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources import find_source
from prep.sources.listing import Source


def read_all(source: Source, split: str) -> list[tuple[str, int, bytes | None]]:
    part = source.splits[split]
    return [(p.name, p.label, p.data) for p in part.read(source.root, part.listing)]


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files))


@pytest.mark.parametrize("jobs", [1, 2])
def test_samples_labels_and_splits(tmp_path: Path, jobs: int) -> None:
    write_tar(
        tmp_path / "imagenet1k-train-0001.tar",
        {"c.cls": b"002", "c.jpg": b"C", "d.jpg": b"D", "d.json": b'{"label": 0}', "d.txt": b"x"},
    )
    write_tar(
        tmp_path / "imagenet1k-train-0000.tar",
        {
            "s/a.jpg": b"A",
            "s/a.seg.png": b"other",
            "s/a.cls": b"1\n",
            "s/b.JPEG": b"B",
            "s/b.cls": b"0",
        },
    )
    write_tar(tmp_path / "imagenet1k-validation-00.tar", {"v.png": b"V", "v.cls": b"1"})
    write_tar(tmp_path / "test" / "0.tar", {"t.webp": b"T"})
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\nwhite shark\n")
    source = find_source(tmp_path, jobs=jobs)
    assert source.kind == "WebDataset tars"
    assert source.names == ("tench", "goldfish", "white shark")
    first, second = "imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar"
    assert read_all(source, "train") == [
        (f"{first}/s/a.jpg", 1, b"A"),
        (f"{first}/s/b.JPEG", 0, b"B"),
        (f"{second}/c.jpg", 2, b"C"),
        (f"{second}/d.jpg", 0, b"D"),
    ]
    assert read_all(source, "val") == [("imagenet1k-validation-00.tar/v.png", 1, b"V")]
    assert read_all(source, "test") == [("test/0.tar/t.webp", UNLABELLED, b"T")]


def test_the_fingerprint_changes_with_a_shard_s_size(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"A", "a.cls": b"1"})
    before = find_source(tmp_path).fingerprint("train")
    with (tmp_path / "0.tar").open("ab") as file:
        file.write(bytes(512))
    assert find_source(tmp_path).fingerprint("train") != before


def test_shards_that_are_missing_by_their_numbers_are_a_gap(tmp_path: Path) -> None:
    for number in (0, 1, 3, 4):
        files = {f"{number}.jpg": b"picture", f"{number}.cls": b"0"}
        write_tar(tmp_path / f"train-{number:04d}.tar", files)
    assert find_source(tmp_path).splits["train"].gaps == ("1 of 5 shards missing: train-0002.tar",)


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"A", "a.cls": b"11"})
    assert find_source(tmp_path).classes[11] == "0011"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": b"A"}, r"0\.tar/a\.jpg has no label"),
        ({"a.jpg": b"A", "a.json": b"{}"}, r"0\.tar/a\.jpg has no label"),
        ({"a.jpg": b"A", "a.cls": b"cat"}, r"a\.cls holds no class's number"),
        ({"a.jpg": b"A", "a.cls": b"-2"}, r"a\.cls holds no class's number"),
        ({"a.jpg": b"A", "a.cls": b"1.5"}, r"a\.cls holds no class's number"),
        ({"a.jpg": b"A", "a.cls": b"1_0"}, r"a\.cls holds no class's number"),
        ({"a.jpg": b"A", "a.cls": b"99999999"}, r"a\.cls holds no class's number"),
        ({"a.jpg": b"A", "a.json": b"[" * 60_000}, r"a\.json holds no class's number"),
        ({"a.jpg": b"A", "a.json": json.dumps({"label": "x"}).encode()}, r"a\.json holds no"),
        ({"a.txt": b"A"}, "hold no pictures"),
    ],
)
def test_what_has_no_label_is_refused(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    write_tar(tmp_path / "0.tar", files)
    with pytest.raises(UserError, match=message):
        find_source(tmp_path)


def test_a_cut_shard_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"A" * 600, "a.cls": b"1"})
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:1200])
    with pytest.raises(UserError, match=r"0\.tar is (cut|damaged).*; get it again"):
        find_source(tmp_path)


def test_too_few_names_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"A", "a.cls": b"1"})
    (tmp_path / "classes.txt").write_text("tench\n")
    with pytest.raises(UserError, match="names 1 classes, but a label is 1"):
        find_source(tmp_path)


def test_a_tar_beside_class_folders_is_not_a_source(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.jpg").write_bytes(b"x")
    write_tar(tmp_path / "train.tar", {"backup.jpg": b"x"})
    assert find_source(tmp_path).kind == "class folders"


@pytest.mark.parametrize("tar", ["notes.tar", "train-0.tar", "n1/more.tar", "train/0.tar"])
def test_a_stray_tar_does_not_hide_the_pictures_in_folders(tmp_path: Path, tar: str) -> None:
    (tmp_path / "n1" / "deep").mkdir(parents=True)
    (tmp_path / "n1" / "deep" / "1.JPEG").write_bytes(b"x")
    (tmp_path / "words.txt").write_text("n1\ttench\n")
    write_tar(tmp_path / tar, {"a.jpg": b"A", "a.cls": b"0"})
    if tar == "train/0.tar":
        (tmp_path / "n1").rename(tmp_path / "train" / "n1")
    assert find_source(tmp_path).classes == ("n1",)


def test_a_class_folder_called_like_a_tar_is_a_class_folder(tmp_path: Path) -> None:
    for name in ("x.tar", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    assert find_source(tmp_path).classes == ("x.tar", "y")


def test_an_empty_folder_called_like_a_tar_is_not_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"A", "a.cls": b"0"})
    (tmp_path / "1.tar").mkdir()
    assert find_source(tmp_path).splits["train"].listing.containers == ("0.tar",)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        *((f"x-{name}-0.tar", "val") for name in ("val", "valid", "validation", "dev", "Dev")),
        *((f"x-{name}-0.tar", "train") for name in ("train", "training", "invalid", "device")),
        *((f"{name}_0.tar", "test") for name in ("test", "testing", "TEST")),
        ("dev-set/train-0.tar", "train"),
        ("valid/0.tar", "val"),
    ],
)
def test_the_split_is_the_one_that_the_name_says(tmp_path: Path, path: str, split: str) -> None:
    write_tar(tmp_path / path, {"a.jpg": b"A", "a.cls": b"0"})
    assert list(find_source(tmp_path).splits) == [split]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"s/a.png": b"B"}, r"0\.tar: key s/a has two pictures; make the shard again"),
        ({"s/a.json": b'{"label": 2}'}, r"0\.tar: key s/a has labels 1 and 2; make the shard"),
    ],
)
def test_two_of_a_kind_under_one_key_are_refused(
    tmp_path: Path, more: dict[str, bytes], message: str
) -> None:
    write_tar(tmp_path / "0.tar", {"s/a.jpg": b"A", "s/a.cls": b"1"} | more)
    with pytest.raises(UserError, match=message):
        find_source(tmp_path)


def test_the_same_label_in_both_forms_is_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.cls": b"1", "a.json": b'{"cls": 1}', "a.jpg": b"A"})
    assert find_source(tmp_path).splits["train"].listing.labels.tolist() == [1]


def test_a_link_in_a_picture_s_place_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for key, kind in (("a", tarfile.SYMTYPE), ("b", tarfile.REGTYPE), ("c", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(f"{key}.jpg")
            member.type, member.linkname = kind, "b.jpg"
            tar.addfile(member)
            label = tarfile.TarInfo(f"{key}.cls")
            label.size = 1
            tar.addfile(label, io.BytesIO(b"0"))
    split = find_source(tmp_path).splits["train"]
    reasons = [picture.reason for picture in split.read(tmp_path, split.listing)]
    assert reasons == ["a link or device in an archive", None, "a link or device in an archive"]
