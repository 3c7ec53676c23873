"""Opening a beton: whatever is missing, damaged or of another make is refused with its path."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ffcv.fields import IntField, RGBImageField
from ffcv.reader import Reader
from ffcv.types import ALLOC_TABLE_TYPE, FieldDescType, HeaderType
from ffcv.writer import DatasetWriter

from prep import handover
from prep.handover import Card, ClassEntry, Statistics
from prep.program import UserError
from train.dataset import check_same_classes, open_dataset, training_statistics

DESCRIPTIONS = HeaderType.itemsize
METADATA = DESCRIPTIONS + 2 * FieldDescType.itemsize


@pytest.fixture
def beton(betons: Path, tmp_path: Path) -> Path:
    """A copy of train.beton and what lies beside it, for changing."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.beton", "train.json", "train.records.npz", "train.stats.npz"):
        shutil.copy(betons / name, folder / name)
    return folder / "train.beton"


def refusal(action: Callable[[], object], path: Path) -> str:
    """The message of the UserError that `action` raises; one line that names `path`."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def overwrite(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def change_card(beton: Path, **values: object) -> None:
    path = handover.card_path(beton)
    handover.write_card(dataclasses.replace(handover.read_card(path), **values), path)


def test_a_whole_beton_opens(beton: Path) -> None:
    opened = open_dataset(beton)
    assert opened.path == beton
    assert len(opened) == 18
    assert [entry.samples for entry in opened.card.classes] == [6, 6, 6]


def test_a_name_with_dots_finds_its_companions(beton: Path) -> None:
    for path in sorted(beton.parent.iterdir()):
        path.rename(path.with_name(path.name.replace("train.", "train.v2.", 1)))
    opened = open_dataset(beton.with_name("train.v2.beton"))
    assert training_statistics(opened).pixels_id == opened.card.pixels_id


def test_a_missing_beton_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "absent.beton", "does not exist"), (tmp_path, "is not a file")):
        assert why in refusal(lambda path=path: open_dataset(path), path)


def test_a_beton_cut_anywhere_is_refused(beton: Path) -> None:
    size = beton.stat().st_size
    cuts = (size - 1, size - ALLOC_TABLE_TYPE.itemsize, size // 2, METADATA, HeaderType.itemsize)
    for length in cuts:
        with beton.open("r+b") as file:
            file.truncate(length)
        message = refusal(lambda: open_dataset(beton), beton)
        assert f"{length} bytes" in message
        assert str(size) in message


def test_a_beton_with_bytes_behind_its_end_is_refused(beton: Path) -> None:
    with beton.open("ab") as file:
        file.write(bytes(ALLOC_TABLE_TYPE.itemsize))
    assert "its header says" in refusal(lambda: open_dataset(beton), beton)


@pytest.mark.parametrize("data", [b"", b"short", b"just a text file\n" * 100, bytes(5000)])
def test_what_is_no_beton_is_refused(beton: Path, data: bytes) -> None:
    beton.write_bytes(data)
    assert "prep write-beton" in refusal(lambda: open_dataset(beton), beton)


def test_another_version_of_the_format_is_refused(beton: Path) -> None:
    overwrite(beton, 0, b"\x03\x00")
    assert "version 3, FFCV reads 2" in refusal(lambda: open_dataset(beton), beton)


def test_a_damaged_byte_of_header_fields_or_samples_is_refused(beton: Path) -> None:
    """Every byte that FFCV reads before the pixels, but for padding and the unused page size."""
    whole = beton.read_bytes()
    reader = Reader(str(beton))
    sample = reader.metadata_type
    within = [  # the bytes of one sample's row that hold something
        offset + byte
        for offset, size in (
            (sample.fields["f0"][1] + inner[1], inner[0].itemsize)
            for inner in sample.fields["f0"][0].fields.values()
        )
        for byte in range(size)
    ] + [sample.fields["f1"][1] + byte for byte in range(8)]
    positions = [byte for byte in range(HeaderType.itemsize) if byte not in range(4, 8)]
    positions += [DESCRIPTIONS + field * FieldDescType.itemsize for field in (0, 1)]  # type ids
    positions += [position + 1 for position in positions[-2:]]  # names
    positions += [METADATA + row * sample.itemsize + byte for row in (0, 17) for byte in within]
    positions += list(range(len(whole) - ALLOC_TABLE_TYPE.itemsize, len(whole)))
    unnoticed = []
    for position in positions:
        overwrite(beton, position, bytes([whole[position] ^ 0x15]))
        with contextlib.suppress(UserError):
            open_dataset(beton)
            unnoticed.append(position)
        overwrite(beton, position, whole[position : position + 1])
    assert unnoticed == []
    assert len(open_dataset(beton)) == 18


def test_a_wrong_label_within_range_is_refused(beton: Path) -> None:
    sample = Reader(str(beton)).metadata_type
    overwrite(beton, METADATA + sample.fields["f1"][1], b"\x02")
    assert "its card says [6, 6, 6]" in refusal(lambda: open_dataset(beton), beton)


def test_stock_ffcv_files_with_other_fields_are_refused(beton: Path) -> None:
    class Stock:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return np.zeros((256, 256, 3), np.uint8), index

    fields = {"picture": RGBImageField(), "label": IntField()}
    DatasetWriter(str(beton), fields, num_workers=1).from_indexed_dataset(Stock())
    change_card(beton, samples=2)
    table = Reader(str(beton)).alloc_table
    records = handover.Records(table["ptr"], table["size"], np.zeros(2, np.uint32))
    path = handover.records_path(beton)
    handover.write_records(records, path)
    change_card(beton, records_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    message = refusal(lambda: open_dataset(beton), beton)
    assert "has fields ['picture', 'label'], expected image and label" in message


def test_a_missing_companion_is_named(beton: Path) -> None:
    for path in (handover.card_path(beton), handover.records_path(beton)):
        data = path.read_bytes()
        path.unlink()
        assert "missing" in refusal(lambda: open_dataset(beton), path)
        path.write_bytes(data)


def test_a_damaged_companion_is_named(beton: Path) -> None:
    for path in (handover.card_path(beton), handover.records_path(beton)):
        data = path.read_bytes()
        overwrite(path, 250, b"\xff\xff\xff")  # in a name, in a pointer
        refusal(lambda: open_dataset(beton), path)
        path.write_bytes(data)


def test_records_of_another_beton_are_refused(beton: Path, betons: Path) -> None:
    path = handover.records_path(beton)
    shutil.copy(betons / "val.records.npz", path)
    assert "not of one make" in refusal(lambda: open_dataset(beton), path)


def test_a_card_with_another_number_of_samples_is_refused(beton: Path) -> None:
    change_card(beton, samples=9)
    message = refusal(lambda: open_dataset(beton), beton)
    assert "the card names 9 samples, records.npz 18" in message


def test_records_of_another_writing_are_refused(beton: Path) -> None:
    path = handover.records_path(beton)
    records = handover.read_records(path)
    size = records.size.copy()
    size[4] += np.uint64(1)
    handover.write_records(dataclasses.replace(records, size=size), path)
    assert "not of one make" in refusal(lambda: open_dataset(beton), path)


def test_the_card_of_another_beton_is_refused(beton: Path, betons: Path) -> None:
    shutil.copy(betons / "val.json", handover.card_path(beton))
    refusal(lambda: open_dataset(beton), handover.records_path(beton))


def test_a_card_of_other_pixels_is_refused(beton: Path) -> None:
    change_card(beton, side=224)
    assert "sample 0 is damaged" in refusal(lambda: open_dataset(beton), beton)
    change_card(beton, side=256, mode="raw")
    assert "sample 0 is damaged" in refusal(lambda: open_dataset(beton), beton)


def test_statistics_come_from_beside_the_beton(beton: Path) -> None:
    found = training_statistics(open_dataset(beton))
    assert isinstance(found, Statistics)
    assert found.count == 18
    assert found.mean_image.shape == (256, 256, 3)


def test_missing_statistics_are_named(beton: Path) -> None:
    path = handover.stats_path(beton)
    path.unlink()
    message = refusal(lambda: training_statistics(open_dataset(beton)), path)
    assert "prep stats" in message


def test_statistics_of_other_data_are_refused(beton: Path) -> None:
    path = handover.stats_path(beton)
    other = dataclasses.replace(handover.read_statistics(path), pixels_id="0" * 64)
    handover.write_statistics(other, path)
    message = refusal(lambda: training_statistics(open_dataset(beton)), path)
    assert "000000000000" in message
    assert open_dataset(beton).card.pixels_id[:12] in message


@pytest.fixture
def card(betons: Path) -> Card:
    return handover.read_card(handover.card_path(betons / "val.beton"))


WNIDS = ["n90000001", "n90000002", "n90000003"]


def test_the_same_classes_pass(card: Card) -> None:
    check_same_classes(card, WNIDS, 256, "val.beton")


@pytest.mark.parametrize(
    ("wnids", "told"),
    [
        (["n90000001", "n90000003", "n90000002"], ("n90000002", "n90000003")),  # another order
        (["n90000001", "n90000002", "n1"], ("n90000003", "n1")),
        (WNIDS[:2], ("3 classes", "2 classes")),
        ([*WNIDS, "n90000004"], ("3 classes", "4 classes")),
    ],
)
def test_other_classes_are_named(card: Card, wnids: list[str], told: tuple[str, str]) -> None:
    path = Path("elsewhere/val.beton")
    message = refusal(lambda: check_same_classes(card, wnids, 256, str(path)), path)
    assert f"{told[0]} in place of {told[1]}" in message


def test_class_names_and_counts_may_differ_between_splits(card: Card) -> None:
    classes = tuple(ClassEntry(wnid, "renamed", 99) for wnid in WNIDS)
    check_same_classes(dataclasses.replace(card, classes=classes), WNIDS, 256, "val.beton")


def test_another_side_is_named(card: Card) -> None:
    path = Path("elsewhere/val.beton")
    message = refusal(lambda: check_same_classes(card, WNIDS, 320, str(path)), path)
    assert "256" in message
    assert "320" in message
