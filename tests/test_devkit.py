"""ILSVRC ids to wnids, labels of validation pictures by their number, and kits that are refused.

The kits are small and have the true structure: a struct array of eight fields, classes and what
lies above them, in a folder of a .tar.gz.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from prep.devkit import GROUND_TRUTH, KIT_LIMIT, META, Devkit, read_devkit
from prep.program import UserError

FOLDER = "ILSVRC2012_devkit_t12"
# id, wnid, words, children. The ids are not in the order of the wnids.
SYNSETS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", []),
    (2, "n02100735", "English setter", []),
    (3, "n01440764", "tench, Tinca tinca", []),
    (4, "n03126707", "crane", []),
    (1001, "n00001740", "entity", [1002]),
    (1002, "n00015388", "animal, animate being", [1, 2, 3]),
]
TRUTH = b"4\n1\n3\n3\n2\n"


def meta(rows: list[tuple[Any, ...]] = SYNSETS) -> bytes:
    fields = (
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
        "num_train_images",
    )  # fmt: skip
    synsets = np.empty((len(rows), 1), dtype=[(field, object) for field in fields])
    for i, (number, wnid, words, children) in enumerate(rows):
        below = np.array([children], float)
        synsets[i, 0] = (float(number), wnid, words, "a gloss", len(children), below, 2.0, 1300.0)
    file = io.BytesIO()
    savemat(file, {"synsets": synsets}, do_compression=True)
    return file.getvalue()


def kit(meta_mat: bytes | None = None, truth: bytes = TRUTH) -> dict[str, bytes]:
    """Files by name, with another file before those that matter."""
    return {
        f"{FOLDER}/readme.txt": b"about this kit\n",
        f"{FOLDER}/{META}": meta() if meta_mat is None else meta_mat,
        f"{FOLDER}/{GROUND_TRUTH}": truth,
    }


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / FOLDER


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / f"{FOLDER}.tar.gz"


# --------------------------------------------------------------------------- what it says


def test_the_ids_of_classes_and_their_names(archive: Path) -> None:
    devkit = read_devkit(packed(archive, kit()))
    assert devkit.wnids == {1: "n02119789", 2: "n02100735", 3: "n01440764", 4: "n03126707"}
    assert devkit.names["n02119789"] == "kit fox, Vulpes macrotis"
    assert list(devkit.names) == list(devkit.wnids.values())


def test_a_label_is_the_wnid_of_the_id_on_the_line_of_the_file_s_number(archive: Path) -> None:
    assert read_devkit(packed(archive, kit())).labels == {
        "ILSVRC2012_val_00000001.JPEG": "n03126707",
        "ILSVRC2012_val_00000002.JPEG": "n02119789",
        "ILSVRC2012_val_00000003.JPEG": "n01440764",
        "ILSVRC2012_val_00000004.JPEG": "n01440764",
        "ILSVRC2012_val_00000005.JPEG": "n02100735",
    }


def test_the_order_of_the_synsets_and_of_the_members_does_not_matter(
    archive: Path, tmp_path: Path
) -> None:
    straight = read_devkit(packed(archive, kit()))
    shuffled = kit(meta([SYNSETS[i] for i in (4, 2, 0, 5, 3, 1)]))
    mixed = dict(reversed(shuffled.items()))
    assert read_devkit(packed(tmp_path / "mixed.tar.gz", mixed)) == straight


def test_the_folder_is_read_as_the_archive_is(archive: Path, tmp_path: Path) -> None:
    assert read_devkit(unpacked(tmp_path, kit())) == read_devkit(packed(archive, kit()))


def test_the_archive_is_read_in_place(archive: Path) -> None:
    read_devkit(packed(archive, kit()))
    assert list(archive.parent.iterdir()) == [archive]


def test_lines_may_end_as_on_windows_and_the_last_need_not(archive: Path) -> None:
    devkit = read_devkit(packed(archive, kit(truth=b"4\r\n1\r\n3")))
    assert list(devkit.labels.values()) == ["n03126707", "n02119789", "n01440764"]


def test_the_tests_kit_is_as_scipy_s_users_read_the_true_one(archive: Path) -> None:
    """Row by row, the fields by position, leaves by the fifth."""
    rows = loadmat(io.BytesIO(meta()), squeeze_me=True)["synsets"]
    leaves = {int(row[0]): str(row[1]) for row in rows if row[4] == 0}
    assert leaves == read_devkit(packed(archive, kit())).wnids


def test_a_kit_of_the_true_size(archive: Path) -> None:
    rows = [(i, f"n{90_000_000 - i}", f"name {i}, other", []) for i in range(1, 1001)]
    above = [(i, f"n{i:08d}", f"group {i}", [1, 2]) for i in range(1001, 1861)]
    truth = b"".join(b"%d\n" % (i * 7 % 1000 + 1) for i in range(50_000))
    devkit = read_devkit(packed(archive, kit(meta(rows + above), truth)))
    assert (len(devkit.wnids), len(devkit.labels)) == (1000, 50_000)
    assert (
        devkit.labels["ILSVRC2012_val_00050000.JPEG"] == f"n{90_000_000 - (49_999 * 7 % 1000 + 1)}"
    )


# --------------------------------------------------------------------------- refusals


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_devkit(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    return message


def test_a_kit_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere.tar.gz is missing; give the devkit's" in refused(tmp_path / "nowhere.tar.gz")
    assert "data/meta.mat is missing; give the folder" in refused(tmp_path)


@pytest.mark.parametrize("missing", [META, GROUND_TRUTH])
def test_a_kit_without_one_of_its_files(archive: Path, tmp_path: Path, missing: Path) -> None:
    files = kit()
    del files[f"{FOLDER}/{missing}"]
    assert f"holds no {missing}; get ILSVRC2012_devkit_t12" in refused(packed(archive, files))
    assert f"{missing} is missing" in refused(unpacked(tmp_path, files))


def test_an_archive_that_is_damaged(archive: Path) -> None:
    whole = packed(archive, kit()).read_bytes()
    for data in (b"", b"<html>", whole[:-200], whole[:50] + b"\0\0\0\0" + whole[54:]):
        archive.write_bytes(data)
        assert "is no whole .tar.gz" in refused(archive)
    archive.write_bytes(gzip.compress(b"no tar" * 200))
    assert "is no whole .tar.gz" in refused(archive)


def test_a_link_in_place_of_a_file(archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(f"{FOLDER}/{META}")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    assert "holds no data/meta.mat" in refused(archive)


def test_a_bomb_is_not_unpacked(archive: Path) -> None:
    with gzip.open(archive, "wb", compresslevel=1) as file:
        for _ in range(KIT_LIMIT // 2**20 + 2):
            file.write(bytes(2**20))
    assert "unpacked, has more than 67,108,864 bytes" in refused(archive)


def test_files_larger_than_the_kit_s(archive: Path, tmp_path: Path) -> None:
    files = kit(truth=b"1\n" * 600_000)
    assert f"{GROUND_TRUTH} has more than 1,048,576 bytes" in refused(packed(archive, files))
    assert f"{GROUND_TRUTH} has more than 1,048,576 bytes" in refused(unpacked(tmp_path, files))
    with (tmp_path / FOLDER / META).open("wb") as file:
        file.truncate(KIT_LIMIT + 1)
    assert f"{META} has more than 67,108,864 bytes" in refused(tmp_path / FOLDER)


def test_a_long_chain_of_headers_is_an_error(archive: Path) -> None:
    """Each header says that a long name follows; tarfile calls itself for every one."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    block = header.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    archive.write_bytes(gzip.compress(block * 5000))
    assert "is no whole .tar.gz" in refused(archive)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ((1, "n09999999", "twice", []), "class 1 with wnid 'n09999999'"),
        ((5, "n01440764", "twice", []), "class 5 with wnid 'n01440764'"),
        ((0, "n09999999", "no id", []), "class 0 with"),
        ((1003, "n09999999", "a leaf above 1000", []), "class 1003 with"),
        ((5, "../../escape", "no wnid", []), "wnid '../../escape'"),
        ((5, "n1", "short", []), "wnid 'n1'"),
        ((5, 7, "a number", []), "with wnid 7"),
    ],
)
def test_a_class_that_cannot_be(archive: Path, row: tuple[Any, ...], shown: str) -> None:
    message = refused(packed(archive, kit(meta([*SYNSETS, row]))))
    assert shown in message
    assert "ids go from 1 to 1000" in message


def test_a_meta_without_classes_or_that_is_none(archive: Path) -> None:
    assert "has no class" in refused(packed(archive, kit(meta(SYNSETS[4:]))))
    assert "meta.mat cannot be read: it does not begin" in refused(packed(archive, kit(b"none")))


@pytest.mark.parametrize(
    ("truth", "shown"),
    [
        (b"1\n5\n", "line 2 of data/ILSVRC2012_validation_ground_truth.txt is b'5'"),
        (b"1001\n", "line 1 of .* is b'1001'"),
        (b"1\n\n1\n", "line 2 of .* is b''"),
        (b"1\n-1\n", "line 2 of .* is b'-1'"),
        (b"n01440764\n", "line 1 of .* is b'n01440764'"),
        (
            b"9" * 5000,
            "line 1 of .* is b'99999999999999999999', which is the ILSVRC id of no class",
        ),
        (b"", "is empty"),
    ],
)
def test_an_id_of_no_class_is_refused_with_its_line(
    archive: Path, truth: bytes, shown: str
) -> None:
    packed(archive, kit(truth=truth))
    with pytest.raises(UserError, match=shown):
        read_devkit(archive)


def test_a_kit_is_a_value(archive: Path) -> None:
    assert read_devkit(packed(archive, kit())) == Devkit(
        {number: wnid for number, wnid, _, children in SYNSETS if not children},
        {wnid: words for _, wnid, words, children in SYNSETS if not children},
        read_devkit(archive).labels,
    )
