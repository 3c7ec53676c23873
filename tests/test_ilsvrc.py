"""ImageNet's archives read where they lie, labels by wnid and never by position."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from conftest import small_jpeg, tar_bytes

from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources import find_source
from prep.sources.listing import Source

# ILSVRC ids, here as in the devkit, do not follow the order of the wnids.
IDS = {3: "n00000001", 1: "n00000002", 2: "n00000003"}
WNIDS = tuple(sorted(IDS.values()))
TRUTH = [2, 3, 1, 2, 2]  # id of validation picture 1, 2, ...


def write_devkit(root: Path, ids: dict[int, str] | None = None, truth: list[int] = TRUTH) -> None:
    """ILSVRC2012_devkit_t12.tar.gz in its true structure."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(float(i), wnid, f"name of {wnid}", 0.0) for i, wnid in (ids or IDS).items()]
    rows.append((1001.0, "n00009999", "above them", 2.0))
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, fields).reshape(-1, 1)}, do_compression=True)
    files = {
        "meta.mat": meta.getvalue(),
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{i}\n" for i in truth).encode(),
    }
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_archives(root: Path) -> Path:
    """Class tars in a train tar, a flat val tar, not in the order of labels or numbers."""
    root.mkdir(exist_ok=True)
    class_tars = {}
    for number, wnid in enumerate(reversed(WNIDS)):
        files = {f"{wnid}_{i}.JPEG": small_jpeg(10 * number + i) for i in (3, 1, 2)}
        class_tars[f"{wnid}.tar"] = tar_bytes(files)
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(class_tars))
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": small_jpeg(100 + n) for n in (4, 1, 5, 3, 2)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(val))
    write_devkit(root)
    return root


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return write_archives(tmp_path / "imagenet")


def read_all(source: Source, split: str) -> dict[str, tuple[int, bytes | None]]:
    """Label and bytes by file name."""
    part = source.splits[split]
    pictures = part.read(source.root, part.listing)
    return {p.name.rpartition("/")[2]: (p.label, p.data) for p in pictures}


def test_a_class_tar_is_one_unit_and_its_label_the_rank_of_its_wnid(archives: Path) -> None:
    source = find_source(archives)
    assert source.kind == "ImageNet's archives"
    assert source.classes == WNIDS
    assert source.names == tuple(f"name of {wnid}" for wnid in WNIDS)
    train = source.splits["train"]
    assert train.of_archives
    assert train.unit_bounds().tolist() == [0, 1, 2, 3]
    assert train.counts(3) is None
    found = read_all(source, "train")
    assert len(found) == 9
    for number, wnid in enumerate(reversed(WNIDS)):
        for i in (1, 2, 3):
            assert found[f"{wnid}_{i}.JPEG"] == (WNIDS.index(wnid), small_jpeg(10 * number + i))


def test_validation_labels_go_by_the_number_in_the_name_and_the_wnid(archives: Path) -> None:
    found = read_all(find_source(archives), "val")
    for number, ilsvrc_id in enumerate(TRUTH, 1):
        label = WNIDS.index(IDS[ilsvrc_id])
        assert found[f"ILSVRC2012_val_{number:08d}.JPEG"] == (label, small_jpeg(100 + number))


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_fingerprint_changes_with_an_archive_s_size(archives: Path, split: str) -> None:
    before = find_source(archives).fingerprint(split)
    with (archives / f"ILSVRC2012_img_{split}.tar").open("ab") as file:
        file.write(bytes(512))
    assert find_source(archives).fingerprint(split) != before


def test_test_pictures_have_no_label(archives: Path) -> None:
    data = tar_bytes({f"test/ILSVRC2012_test_{n:08d}.JPEG": small_jpeg(n) for n in (1, 2)})
    (archives / "ILSVRC2012_img_test_v10102019.tar").write_bytes(data)
    source = find_source(archives)
    assert list(source.splits) == ["train", "val", "test"]
    assert [label for label, _ in read_all(source, "test").values()] == [UNLABELLED] * 2


def test_test_s_archive_counts_beside_unpacked_folders(archives: Path) -> None:
    packed = find_source(archives)
    for split in ("train", "val"):
        unpack(archives, split)
    data = tar_bytes({f"test/ILSVRC2012_test_{n:08d}.JPEG": small_jpeg(n) for n in (1, 2)})
    (archives / "ILSVRC2012_img_test_v10102019.tar").write_bytes(data)
    source = find_source(archives)
    assert list(source.splits) == ["train", "val", "test"]
    assert (source.classes, source.names) == (packed.classes, packed.names)
    assert len(source.splits["train"].listing) == len(read_all(source, "train"))
    assert len(read_all(source, "test")) == 2


def test_val_alone_has_the_devkit_s_classes(archives: Path) -> None:
    (archives / "ILSVRC2012_img_train.tar").unlink()
    source = find_source(archives)
    assert list(source.splits) == ["val"]
    assert source.classes == WNIDS


def test_train_alone_needs_no_devkit(archives: Path) -> None:
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(UserError, match=r"img_val\.tar has no labels of its own: put ILSVRC2012_d"):
        find_source(archives)
    assert find_source(archives, ("train",)).names == WNIDS


def test_a_flat_validation_folder_gets_its_labels_from_the_devkit(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    for wnid in WNIDS:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "train" / wnid / "1.JPEG").write_bytes(b"x")
    (tmp_path / "val").mkdir()
    for number in range(1, 6):
        (tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(b"x")
    source = find_source(tmp_path)
    val = source.splits["val"].listing
    for name, label in zip(val.names, val.labels.tolist(), strict=True):
        number = int(name[-13:-5])
        assert source.classes[label] == IDS[TRUTH[number - 1]]
    assert source.names[0] == "name of n00000001"


# --------------------------------------------------------------------------- some unpacked


def unpack(archives: Path, split: str) -> None:
    """Put the pictures of a split's archive into class folders, as most people have train/."""
    source = find_source(archives)
    part = source.splits[split]
    for picture in part.read(archives, part.listing):
        path = archives / split / WNIDS[picture.label] / picture.name.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.data or b"")
    (archives / f"ILSVRC2012_img_{split}.tar").unlink()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_may_be_unpacked_into_class_folders(archives: Path, split: str) -> None:
    packed = find_source(archives)
    expected = {name: read_all(packed, name) for name in ("train", "val")}
    unpack(archives, split)
    source = find_source(archives)
    assert source.kind == "ImageNet's archives and folders"
    assert (source.classes, source.names) == (packed.classes, packed.names)
    assert list(source.splits) == ["train", "val"]
    assert {name: read_all(source, name) for name in ("train", "val")} == expected
    assert source.splits["train"].of_archives == (split == "val")
    assert list(find_source(archives, ("train",)).splits) == ["train"]


def test_an_unpacked_flat_val_beside_train_s_archive_has_the_devkit_s_labels(
    archives: Path,
) -> None:
    expected = read_all(find_source(archives), "val")
    (archives / "val").mkdir()
    with tarfile.open(archives / "ILSVRC2012_img_val.tar") as tar:
        for member in tar.getmembers():  # extractall(filter=) is of Python 3.11.4
            data = tar.extractfile(member)
            assert data is not None
            (archives / "val" / member.name).write_bytes(data.read())
    (archives / "ILSVRC2012_img_val.tar").unlink()
    assert read_all(find_source(archives), "val") == expected
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(UserError, match=r"val holds no class folders.*put ImageNet's devkit"):
        find_source(archives)


def test_val_pictures_of_a_class_without_training_folder_are_a_gap(archives: Path) -> None:
    unpack(archives, "train")
    for path in (archives / "train" / WNIDS[1]).iterdir():
        path.unlink()
    with pytest.raises(UserError, match=f"no picture in train of .*: {WNIDS[1]}"):
        find_source(archives)
    assert find_source(archives, ("val",)).classes == WNIDS
    (archives / "train" / WNIDS[1]).rmdir()
    val = find_source(archives).splits["val"]
    assert val.listing.labels.max() < 2
    assert len(val.gaps) == 1
    assert val.gaps[0].endswith(f"of val is of 1 class that train does not have: {WNIDS[1]}")


def test_an_empty_train_folder_beside_val_s_archive_counts_for_nothing(archives: Path) -> None:
    (archives / "ILSVRC2012_img_train.tar").unlink()
    (archives / "train").mkdir()
    assert find_source(archives, ("val",)).classes == WNIDS
    with pytest.raises(UserError, match="train holds no class folders"):
        find_source(archives)


# --------------------------------------------------------------------------- hostile, damaged


def test_a_picture_that_the_devkit_does_not_know_is_refused(archives: Path) -> None:
    data = tar_bytes({"ILSVRC2012_val_00000009.JPEG": b"x"})
    (archives / "ILSVRC2012_img_val.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"says nothing of ILSVRC2012_val_00000009\.JPEG"):
        find_source(archives)


def test_val_pictures_of_a_class_without_training_tar_are_a_gap(archives: Path) -> None:
    data = tar_bytes({"n00000001.tar": tar_bytes({"1.JPEG": b"x"})})
    (archives / "ILSVRC2012_img_train.tar").write_bytes(data)
    val = find_source(archives).splits["val"]
    assert set(val.listing.labels.tolist()) == {0}
    assert "classes that train does not have: n00000002, n00000003" in val.gaps[0]


@pytest.mark.parametrize(
    "name", ["n00000001.tgz", "../n00000001.tar.x", "n1.tar", "x/n0000000a.tar"]
)
def test_what_is_no_class_tar_is_refused(archives: Path, name: str) -> None:
    (archives / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({name: b"x"}))
    with pytest.raises(UserError, match="expected a tar a class"):
        find_source(archives)


def test_a_class_given_twice_is_refused(archives: Path) -> None:
    data = tar_bytes({"n00000001.tar": b"x", "a/n00000001.tar": b"y"})
    (archives / "ILSVRC2012_img_train.tar").write_bytes(data)
    with pytest.raises(UserError, match="each once"):
        find_source(archives)


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_a_cut_archive_is_refused_when_it_is_listed(archives: Path, name: str) -> None:
    data = (archives / name).read_bytes()
    (archives / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=rf"{name} is (damaged|cut short).*get it again"):
        find_source(archives)


def test_a_damaged_class_tar_is_named_when_it_is_read(archives: Path) -> None:
    good = tar_bytes({"1.JPEG": b"x" * 600, "2.JPEG": b"y"})
    data = bytearray(tar_bytes({"n00000002.tar": good, "n00000003.tar": good}))
    data[512 + 512 + 1024 + 10] ^= 1  # in the second header of the first class tar
    (archives / "ILSVRC2012_img_train.tar").write_bytes(data)
    source = find_source(archives, ("train",))
    with pytest.raises(UserError, match=r"n00000002\.tar is damaged at byte 1536; get the archive"):
        read_all(source, "train")


def test_a_link_in_a_class_tar_is_a_picture_that_cannot_be_read(archives: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("evil.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (archives / "ILSVRC2012_img_train.tar").write_bytes(
        tar_bytes({"n00000001.tar": out.getvalue()})
    )
    source = find_source(archives, ("train",))
    (picture,) = source.splits["train"].read(source.root, source.splits["train"].listing)
    assert (picture.data, picture.reason) == (None, "a link or device in an archive")


def test_a_link_in_the_validation_tar_is_a_picture_that_cannot_be_read(archives: Path) -> None:
    with tarfile.open(archives / "ILSVRC2012_img_val.tar", "a") as tar:
        link = tarfile.TarInfo("ILSVRC2012_val_00000001.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    source = find_source(archives, ("val",))
    pictures = list(source.splits["val"].read(source.root, source.splits["val"].listing))
    assert [p.reason for p in pictures].count("a link or device in an archive") == 1
    assert len(pictures) == 6
