"""`prep verify`: a whole beton passes; any flipped bit is found and its place is named."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from prep import beton, handover, verify, write
from prep.beton import Layout, open_beton
from prep.handover import Records, read_card, read_records
from prep.order import Order
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


def test_many_pages_pass_and_fail_alike(
    prepared_set: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beton, "PAGE_SIZE", 1 << 16)  # workers have the pages they are given
    monkeypatch.setattr(verify, "UNIT_PAGES", 2)
    write.write_beton(prepared_set / "train", copy, "jpg", jobs=1)
    assert check(copy, jobs=1).samples == 18
    layout = open_beton(copy).layout
    for sample in (16, 11):
        flip(copy, int(layout.ptr[sample]) + 40)
    assert "2 damaged places; the first: sample 11 of class" in message(copy, jobs=1)


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
            f"1 damaged place; the first: sample {sample} of class {entry.wnid} ({entry.name})"
            f" at offset {ptr}: its bytes have changed" in message(copy)
        )
        flip(copy, offset, bit)
    check(copy, jobs=1)


def test_a_flipped_bit_of_a_raw_sample_is_named(raw: Path) -> None:
    flip(raw, int(open_beton(raw).layout.ptr[3]) + 100_000)
    assert "the first: sample 3 of class n90000001 (first) at offset" in message(raw)


def regions(layout: Layout) -> dict[str, tuple[int, int, str]]:
    """Where each part of the file begins and ends, and what verify calls it."""
    count = len(layout.ptr)
    metadata_end = beton.METADATA_START + count * beton.SAMPLE.itemsize
    records_end = int((layout.ptr + layout.size).max())
    return {
        "header": (0, beton.HEADER.itemsize, "header: "),
        "fields": (beton.HEADER.itemsize, beton.METADATA_START, "header: the description of its"),
        "metadata": (beton.METADATA_START, metadata_end, "metadata of sample {sample}: "),
        "gap": (metadata_end, layout.data_start, "the padding at offset {offset} is not zero"),
        "last page": (records_end, layout.table_start, "the padding at offset {offset} is not"),
        "table": (
            layout.table_start,
            layout.file_size,
            "allocation table: row of sample {row}: ",
        ),
    }


@pytest.mark.parametrize("region", ["header", "fields", "metadata", "gap", "last page", "table"])
def test_a_flipped_bit_elsewhere_is_found_and_its_part_named(copy: Path, region: str) -> None:
    layout = open_beton(copy).layout
    start, stop, named = regions(layout)[region]
    generator = np.random.default_rng(len(region))
    for _ in range(40):
        offset = int(generator.integers(start, stop))
        bit = int(generator.integers(8))
        flip(copy, offset, bit)
        expected = named.format(
            offset=offset,
            sample=(offset - beton.METADATA_START) // beton.SAMPLE.itemsize,
            row=(offset - layout.table_start) // beton.TABLE.itemsize,
        )
        assert expected in message(copy), (offset, bit)
        flip(copy, offset, bit)
    check(copy, jobs=1)


def test_padding_between_samples_of_two_pages_is_looked_at(raw: Path) -> None:
    """Room that no record fits into: 42 raw samples leave 128 KiB of a page, 18 leave more."""
    layout = open_beton(raw).layout
    end = int(layout.ptr[17] + layout.size[17])
    flip(raw, end)
    assert f"the padding at offset {end} is not zero" in message(raw)


@pytest.mark.parametrize("name", ["train.records.npz", "train.json"])
def test_a_flipped_bit_of_a_companion_is_found_and_named(copy: Path, name: str) -> None:
    path = copy.with_name(name)
    size = path.stat().st_size
    generator = np.random.default_rng(1)
    for _ in range(100):
        offset, bit = int(generator.integers(size)), int(generator.integers(8))
        flip(path, offset, bit)
        assert name in message(copy), (offset, bit)
        flip(path, offset, bit)
    check(copy, jobs=1)


def test_damaged_statistics_are_found_and_named(copy: Path) -> None:
    path = copy.with_name("train.stats.npz")
    data = path.read_bytes()
    for damaged in (
        data.replace(b"(256, 256, 3)", b"(056, 256, 3)"),
        data.replace(b"(256, 256, 3)", b"(256, 256, 1)"),
        data[:1000],
        b"",
    ):
        path.write_bytes(damaged)
        assert f"{path} is " in message(copy)
    path.unlink()
    check(copy, jobs=1)  # those of validation never exist
    path.mkdir()
    assert f"{path} is damaged (it is a folder, not a regular file)" in message(copy)


def test_statistics_of_another_beton_are_named(copy: Path) -> None:
    path = copy.with_suffix(".stats.npz")
    other = dataclasses.replace(handover.read_statistics(path), pixels_id="0" * 64)
    handover.write_statistics(other, path)
    assert f"{path} is of other data (pixels_id 000000000000, the card says" in message(copy)
    shutil.copy(path, copy.with_name("val.stats.npz"))
    check(copy.with_name("val.beton"), jobs=1)
    copy.with_name("val.stats.npz").write_bytes(b"")
    assert "val.stats.npz is damaged" in message(copy.with_name("val.beton"))


@pytest.mark.parametrize("name", ["train.json", "train.records.npz", "train.stats.npz"])
def test_a_pipe_beside_a_beton_is_named_and_keeps_nobody_waiting(copy: Path, name: str) -> None:
    path = copy.with_name(name)
    path.unlink()
    os.mkfifo(path)
    assert f"{path} " in message(copy)
    assert "it is a pipe, not a regular file" in message(copy)


def test_two_labels_that_change_places_are_named(copy: Path) -> None:
    """Every count and checksum stays."""
    labels = open_beton(copy).labels
    assert labels[0] != labels[17]
    with copy.open("r+b") as file:
        for sample, label in ((0, labels[17]), (17, labels[0])):
            file.seek(beton.METADATA_START + sample * beton.SAMPLE.itemsize + 16)
            file.write(label.tobytes())
    assert "metadata of sample 0: label is 2, by card and records it should be 0" in message(copy)


@pytest.mark.parametrize(
    ("byte", "bit", "said"),
    [
        (0, 0, "mode is 1, by card and records it should be 0"),
        (1, 0, "width is 257, by card and records it should be 256"),
        (4, 0, "height is 0, by card and records it should be 256"),
        (7, 7, "pointer is"),
        (14, 1, "unused is"),
        (16, 6, "label is 64, by card and records it should be 0"),
        (23, 7, "label is -9223372036854775808, by card"),
    ],
)
def test_a_field_of_the_metadata_is_named_with_its_value(
    copy: Path, byte: int, bit: int, said: str
) -> None:
    flip(copy, beton.METADATA_START + 4 * beton.SAMPLE.itemsize + byte, bit)
    assert f"metadata of sample 4: {said}" in message(copy)


def test_a_shuffled_beton_s_labels_are_checked_too(prepared_set: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    write.write_beton(prepared_set / "train", path, "jpg", 1, Order("shuffled", 4))
    check(path, jobs=1)
    flip(path, beton.METADATA_START + 2 * beton.SAMPLE.itemsize + 16)
    assert "metadata of sample 2: label is" in message(path)


def test_a_worker_that_dies_ends_it(prepared_set: Path, tmp_path: Path) -> None:
    """Damage that kills libjpeg itself is none that verify could name; but it must not wait."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from prep import beton, verify, write\n"
        "beton.PAGE_SIZE = 1 << 16\n"
        "train, path = map(pathlib.Path, sys.argv[1:])\n"
        "write.write_beton(train, path, 'jpg', jobs=1)\n"
        "def die(unit):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "verify.verify_unit = die\n"
        "verify.verify(path, jobs=2)\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        [*command, str(prepared_set / "train"), str(tmp_path / "x.beton")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "one of 2 worker processes died" in ended.stderr


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
    accept(copy)


def accept(copy: Path) -> None:
    """Let the card name the beton and the records that are there."""
    path = copy.with_suffix(".json")
    sha256, records_sha256 = (
        hashlib.sha256(each.read_bytes()).hexdigest()
        for each in (copy, copy.with_suffix(".records.npz"))
    )
    card = dataclasses.replace(read_card(path), sha256=sha256, records_sha256=records_sha256)
    handover.write_card(card, path)


def test_a_sample_that_cannot_be_decoded_is_named(copy: Path) -> None:
    rewrite_sample(copy, 6, b"no jpeg")
    said = message(copy)
    assert "sample 6 of class n90000002 (second)" in said
    assert "is no 256x256 colour JPEG" in said


def test_a_sample_whose_scan_is_damaged_is_named(copy: Path) -> None:
    opened = open_beton(copy)
    start, size = int(opened.layout.ptr[6]), int(opened.layout.size[6])
    data = copy.read_bytes()[start : start + size]
    rewrite_sample(copy, 6, data[: size // 2].ljust(size, b"\xff"))
    assert "cannot be decoded" in message(copy)


def test_a_picture_of_another_shape_is_named(copy: Path) -> None:
    from prep.images import encode_jpeg

    rewrite_sample(copy, 6, encode_jpeg(np.zeros((64, 32, 3), np.uint8), 90))
    assert "sample 6 of class n90000002 (second)" in message(copy)
    assert "is no 256x256 colour JPEG" in message(copy)


# --------------------------------------------------------------------------- companions


def test_a_beton_cut_short_is_refused(copy: Path) -> None:
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size - 1)
    assert "cut short" in message(copy)


def test_a_beton_that_is_cut_short_meanwhile_is_named(copy: Path) -> None:
    records, card = (
        read_records(copy.with_suffix(".records.npz")),
        read_card(copy.with_suffix(".json")),
    )
    (unit,) = verify._units(copy, beton.plan_layout(records.size), records, card)
    for kept in (int(records.ptr[9]) + 5, int(records.ptr[0]), 0):
        with copy.open("r+b") as file:
            file.truncate(kept)
        checked = verify.verify_unit(unit)
        assert checked.faults == (9 if kept > records.ptr[0] else 18)
        assert checked.first[0].sample == 18 - checked.faults


def test_a_place_that_the_disk_cannot_read_is_named() -> None:
    memory = Path("/proc/self/mem")  # nothing is at its beginning: EIO
    with (
        memory.open("rb") as file,
        pytest.raises(
            UserError, match=r"mem cannot be read between offsets 0 and 8388608, samples 7"
        ),
    ):
        verify._read_page(file, beton.Page(0, 7, [0, 10, 20]), memory)


def test_what_is_no_beton_is_refused(copy: Path) -> None:
    copy.write_text("no beton " * 1000)
    assert "has 9000 bytes, by card and records it should have" in message(copy)
    size = (copy.parent / "val.beton").stat().st_size
    copy.with_name("val.beton").write_bytes(b"x" * size)
    assert "header: version is 30840, by card" in message(copy.with_name("val.beton"))
    assert "none.beton does not exist" in message(copy.with_name("none.beton"))
    for other in (copy.with_suffix(".json"), copy.with_suffix("")):
        assert message(other) == f"{other} is no .beton; give FILE.beton"


@pytest.mark.parametrize(
    ("ending", "said"), [(".json", "json is missing"), (".records.npz", "records.npz is missing")]
)
def test_a_missing_companion_is_named(copy: Path, ending: str, said: str) -> None:
    copy.with_suffix(ending).unlink()
    assert said in message(copy)


def test_the_card_of_another_beton_is_refused(copy: Path, raw: Path) -> None:
    for other in (copy.with_name("val.json"), raw.with_suffix(".json")):
        shutil.copy(other, copy.with_name("train.json"))
        assert "beton, card and records are not of one make" in message(copy)


def test_a_card_of_other_bytes_is_refused(copy: Path) -> None:
    card = dataclasses.replace(read_card(copy.with_suffix(".json")), sha256="0" * 64)
    handover.write_card(card, copy.with_suffix(".json"))
    assert "its sha256 is not the card's" in message(copy)


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
    accept(copy)
    assert "the first: sample 4 of class" in message(copy)
