"""`prep verify`: a whole beton passes; any flipped bit is found and its place is named."""

from __future__ import annotations

import dataclasses
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from prep import beton, handover, verify, write
from prep.beton import Layout, open_beton
from prep.handover import Records, read_card, read_records
from prep.program import UserError
from prep.verify import verify as check


@pytest.fixture
def copy(betons: Path, tmp_path: Path) -> Path:
    """train.beton with its companions, which a test may change."""
    return Path(shutil.copytree(betons, tmp_path / "betons")) / "train.beton"


@pytest.fixture
def raw(prepared_set: Path, tmp_path: Path) -> Path:
    path = tmp_path / "raw.beton"
    write.write_beton(prepared_set / "train", path, "raw", jobs=1)
    return path


def flip(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def message(path: Path, jobs: int = 1) -> str:
    with pytest.raises(UserError) as caught:
        check(path, jobs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------- what passes


@pytest.mark.parametrize("name", ["train.beton", "val.beton"])
def test_a_whole_beton_passes(betons: Path, name: str) -> None:
    assert check(betons / name, jobs=1) == read_card((betons / name).with_suffix(".json"))


def test_a_whole_raw_beton_passes(raw: Path) -> None:
    assert check(raw, jobs=1).mode == "raw"


def test_small_units_on_two_workers_pass_and_fail_alike(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "UNIT_SIZE", 5)
    assert check(copy, jobs=2).samples == 18
    layout = open_beton(copy).layout
    for sample in (16, 11):
        flip(copy, int(layout.ptr[sample]) + 40)
    assert "2 damaged samples; the first is sample 11 of class" in message(copy, jobs=2)


# --------------------------------------------------------------------------- flipped bits


def test_a_flipped_bit_of_a_sample_is_named_with_class_and_offset(copy: Path) -> None:
    opened, card = open_beton(copy), read_card(copy.with_suffix(".json"))
    generator = np.random.default_rng(2)
    for sample in generator.permutation(18)[:12].tolist():
        ptr, size = int(opened.layout.ptr[sample]), int(opened.layout.size[sample])
        offset, bit = ptr + int(generator.integers(size)), int(generator.integers(8))
        flip(copy, offset, bit)
        entry = card.classes[opened.labels[sample]]
        assert (
            f"1 damaged samples; the first is sample {sample} of class {entry.wnid} ({entry.name})"
            f" at offset {ptr}: its bytes have changed" in message(copy)
        )
        flip(copy, offset, bit)
    check(copy, jobs=1)


def test_a_flipped_bit_of_a_raw_sample_is_named(raw: Path) -> None:
    flip(raw, int(open_beton(raw).layout.ptr[3]) + 100_000)
    assert "the first is sample 3 of class n90000001 (first) at offset" in message(raw)


def place_of(layout: Layout, region: str, share: float) -> int:
    """An offset in a region of the file."""
    records_end = int((layout.ptr + layout.size).max())
    metadata_end = beton.METADATA_START + len(layout.ptr) * beton.SAMPLE.itemsize
    start, stop = {
        "header": (0, beton.HEADER.itemsize),
        "fields": (beton.HEADER.itemsize, beton.METADATA_START),
        "metadata": (beton.METADATA_START, metadata_end),
        "padding": (metadata_end, layout.data_start),
        "last page": (records_end, layout.table_start),
        "table": (layout.table_start, layout.file_size),
    }[region]
    return start + int(share * (stop - start))


@pytest.mark.parametrize(
    ("region", "flips", "named"),
    [
        ("header", 24, ("header", "version", "no fields", "cut short", "metadata", "table")),
        ("fields", 12, ("fields", "header, metadata")),
        ("metadata", 60, ("metadata",)),
        ("padding", 3, ("padding",)),
        ("last page", 3, ("padding",)),
        ("table", 60, ("table",)),
    ],
)
def test_a_flipped_bit_elsewhere_is_found_and_its_part_named(
    copy: Path, region: str, flips: int, named: tuple[str, ...]
) -> None:
    layout = open_beton(copy).layout
    generator = np.random.default_rng(len(region))
    for _ in range(flips):
        offset = place_of(layout, region, generator.random())
        bit = int(generator.integers(8))
        flip(copy, offset, bit)
        said = message(copy)
        assert any(part in said.replace(str(copy), "") for part in named), (offset, bit, said)
        flip(copy, offset, bit)
    check(copy, jobs=1)


def test_two_labels_that_change_places_are_found(copy: Path) -> None:
    """Every count and checksum stays; only the whole file's sha256 tells."""
    labels = open_beton(copy).labels
    assert labels[0] != labels[17]
    with copy.open("r+b") as file:
        for sample, label in ((0, labels[17]), (17, labels[0])):
            file.seek(beton.METADATA_START + sample * beton.SAMPLE.itemsize + 16)
            file.write(label.tobytes())
    assert "every sample is whole, but the sha256 is not the card's" in message(copy)


def test_a_label_outside_the_classes_is_named(copy: Path) -> None:
    flip(copy, beton.METADATA_START + 4 * beton.SAMPLE.itemsize + 16, bit=6)
    assert "metadata of sample 4: label 64 is not one of 3 classes" in message(copy)
    flip(copy, beton.METADATA_START + 4 * beton.SAMPLE.itemsize + 23, bit=7)
    assert "metadata of sample 4: label -" in message(copy)


def test_another_label_is_named(copy: Path) -> None:
    flip(copy, beton.METADATA_START + 0 * beton.SAMPLE.itemsize + 16)
    assert "metadata: class n90000001 has 5 samples, the card says 6" in message(copy)


def test_another_size_or_mode_is_named(copy: Path) -> None:
    flip(copy, beton.METADATA_START + 2 * beton.SAMPLE.itemsize)
    assert "metadata of sample 2: 256x256, mode 1; the card says 256x256, jpg" in message(copy)
    flip(copy, beton.METADATA_START + 2 * beton.SAMPLE.itemsize)
    flip(copy, beton.METADATA_START + 2 * beton.SAMPLE.itemsize + 1)
    assert "metadata of sample 2: 257x256" in message(copy)


# --------------------------------------------------------------------------- bad from the start


def rewrite_sample(copy: Path, sample: int, data: bytes) -> None:
    """Put other bytes in a sample's place, and make records and card agree."""
    layout = open_beton(copy).layout
    data = data.ljust(int(layout.size[sample]), b"\0")
    with copy.open("r+b") as file:
        file.seek(int(layout.ptr[sample]))
        file.write(data)
    records = read_records(copy.with_suffix(".records.npz"))
    records.crc32[sample] = zlib.crc32(data)
    handover.write_records(records, copy.with_suffix(".records.npz"))


def test_a_sample_that_cannot_be_decoded_is_named(copy: Path) -> None:
    rewrite_sample(copy, 6, b"no jpeg")
    said = message(copy)
    assert "sample 6 of class n90000002 (second)" in said
    assert "it cannot be decoded" in said


def test_a_picture_of_another_shape_is_named(copy: Path) -> None:
    from prep.images import encode_jpeg

    rewrite_sample(copy, 6, encode_jpeg(np.zeros((64, 32, 3), np.uint8), 90))
    assert "sample 6 of class n90000002 (second)" in message(copy)
    assert "its picture has shape (64, 32, 3)" in message(copy)


# --------------------------------------------------------------------------- companions


def test_a_beton_cut_short_is_refused(copy: Path) -> None:
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size - 1)
    assert "cut short" in message(copy)


def test_what_is_no_beton_is_refused(copy: Path) -> None:
    copy.write_text("no beton " * 1000)
    assert "is not a beton of this project" in message(copy)


@pytest.mark.parametrize(
    ("ending", "said"), [(".json", "json is missing"), (".records.npz", "records.npz is missing")]
)
def test_a_missing_companion_is_named(copy: Path, ending: str, said: str) -> None:
    copy.with_suffix(ending).unlink()
    assert said in message(copy)


def test_the_card_of_another_beton_is_refused(copy: Path) -> None:
    shutil.copy(copy.with_name("val.json"), copy.with_name("train.json"))
    assert "has 18 samples, its card says 9; the card is of another beton" in message(copy)


def test_the_card_of_another_mode_is_refused(copy: Path, raw: Path) -> None:
    shutil.copy(raw.with_suffix(".json"), copy.with_suffix(".json"))
    assert "metadata of sample 0: 256x256, mode 0; the card says 256x256, raw" in message(copy)


def test_a_card_of_other_bytes_is_refused(copy: Path) -> None:
    card = dataclasses.replace(read_card(copy.with_suffix(".json")), sha256="0" * 64)
    handover.write_card(card, copy.with_suffix(".json"))
    assert "the sha256 is not the card's" in message(copy)


def test_records_of_another_beton_are_refused(copy: Path, raw: Path) -> None:
    for other in (copy.with_name("val.records.npz"), raw.with_suffix(".records.npz")):
        shutil.copy(other, copy.with_suffix(".records.npz"))
        assert "records.npz" in message(copy)
        assert "write the beton again" in message(copy)


def test_records_of_other_checksums_name_the_sample(copy: Path) -> None:
    records = read_records(copy.with_suffix(".records.npz"))
    crc32 = records.crc32.copy()
    crc32[4] ^= 1
    handover.write_records(
        Records(records.ptr, records.size, crc32), copy.with_suffix(".records.npz")
    )
    assert "the first is sample 4 of class" in message(copy)
