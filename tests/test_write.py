"""`prep write-beton`: the prepared bytes as they are, the same file each time, or none."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import fill_disk

from prep import beton, handover, page, prepared, write
from prep.direct import aligned, open_direct
from prep.files import whole_file, write_at
from prep.handover import read_card, read_records, read_statistics
from prep.journal import Journal
from prep.prepared import open_prepared
from prep.program import UserError
from prep.write import write_beton


@pytest.fixture
def copy(prepared_set: Path, tmp_path: Path) -> Path:
    """A prepared set that a test may change."""
    return Path(shutil.copytree(prepared_set, tmp_path / "out"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a test's beton goes."""
    folder = tmp_path / "betons"
    folder.mkdir()
    return folder / "train.beton"


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def records_of(opened: beton.Beton) -> list[bytes]:
    """The bytes of every sample."""
    data = opened.path.read_bytes()
    places = zip(opened.layout.ptr.tolist(), opened.layout.size.tolist(), strict=True)
    return [data[ptr : ptr + size] for ptr, size in places]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SMALL_PAGE = 1 << 18  # bytes, for many pages: one raw sample, some five JPEGs
ALL_FOUR = ["train.beton", "train.json", "train.records.npz", "train.stats.npz"]

# --------------------------------------------------------------------------- what is in it


def test_a_sample_s_bytes_are_the_prepared_file_s(prepared_set: Path, betons: Path) -> None:
    split = open_prepared(prepared_set / "train")
    opened = beton.open_beton(betons / "train.beton")
    places = split.places(0, len(split))
    for sample, (data, place) in enumerate(zip(records_of(opened), places, strict=True)):
        assert data == place.path.read_bytes()
        assert opened.labels[sample] == sorted(
            p.name for p in (prepared_set / "train").iterdir()
        ).index(place.path.parent.name)


def test_raw_samples_are_the_pixels_that_ffcv_would_decode(prepared_set: Path, place: Path) -> None:
    from ffcv.libffcv import imdecode

    card = write_beton(prepared_set / "train", place, "raw", jobs=2).card
    split = open_prepared(prepared_set / "train")
    opened = beton.open_beton(place)
    places = split.places(0, len(split))
    for data, sample in zip(records_of(opened), places, strict=True):
        jpeg, pixels = np.fromfile(sample.path, np.uint8), np.zeros((256, 256, 3), np.uint8)
        imdecode(jpeg, pixels, 256, 256, 256, 256, 0, 0, 1, 1, False, False)
        assert data == pixels.tobytes()
    assert card.mode == "raw"
    assert card.tools["raw pixels"].startswith("libjpeg-turbo, fast DCT")
    assert card.pixels_id == split.card.pixels_id


def test_no_sample_crosses_a_page(prepared_set: Path, place: Path) -> None:
    """18 raw samples of 192 KiB fill no whole page; 8 MiB pages hold 42 of them."""
    many = np.full(100, 256 * 256 * 3, np.uint64)
    layout = beton.plan_layout(many)
    first, last = layout.ptr, layout.ptr + many - np.uint64(1)
    assert np.array_equal(first // beton.PAGE_SIZE, last // beton.PAGE_SIZE)
    assert len(np.unique(first // beton.PAGE_SIZE)) == 3
    write_beton(prepared_set / "train", place, "raw", jobs=1)
    assert np.array_equal(beton.open_beton(place).layout.ptr, layout.ptr[:18])


def test_the_card_names_the_file_s_bytes(prepared_set: Path, betons: Path) -> None:
    card = read_card(betons / "train.json")
    assert card.sha256 == sha256_of(betons / "train.beton")
    before = read_card(prepared_set / "train.json")
    for field in ("split", "samples", "classes", "side", "quality", "source", "pixels_id", "mode"):
        assert getattr(card, field) == getattr(before, field)


def test_the_records_are_of_the_file_s_bytes(betons: Path) -> None:
    records = read_records(betons / "train.records.npz")
    data = (betons / "train.beton").read_bytes()
    assert len(records.ptr) == 18
    for ptr, size, crc32 in zip(
        records.ptr.tolist(), records.size.tolist(), records.crc32.tolist(), strict=True
    ):
        assert zlib.crc32(data[ptr : ptr + size]) == crc32


# --------------------------------------------------------------------------- same bytes


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_two_writes_with_any_workers_are_equal(
    prepared_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(beton, "PAGE_SIZE", SMALL_PAGE)
    for number, jobs in enumerate((1, 2, 5)):
        (tmp_path / str(number)).mkdir()
        write_beton(prepared_set / "train", tmp_path / str(number) / "train.beton", mode, jobs)
    for name in ALL_FOUR:
        first = (tmp_path / "0" / name).read_bytes()
        assert (tmp_path / "1" / name).read_bytes() == first
        assert (tmp_path / "2" / name).read_bytes() == first


def test_a_place_and_a_name_do_not_change_the_bytes(
    prepared_set: Path, betons: Path, tmp_path: Path
) -> None:
    write_beton(prepared_set / "train", tmp_path / "other.v2.beton", "jpg", jobs=1)
    for name in ALL_FOUR:
        other = tmp_path / name.replace("train", "other.v2")
        assert other.read_bytes() == (betons / name).read_bytes()


# --------------------------------------------------------------------------- statistics


def test_the_statistics_are_copied(prepared_set: Path, betons: Path) -> None:
    assert (betons / "train.stats.npz").read_bytes() == (
        prepared_set / "train.stats.npz"
    ).read_bytes()


def test_missing_statistics_are_reported(copy: Path, place: Path) -> None:
    (copy / "train.stats.npz").unlink()
    written = write_beton(copy / "train", place, "jpg", jobs=1)
    assert not written.has_statistics
    assert names_in(place.parent) == ["train.beton", "train.json", "train.records.npz"]


def test_statistics_of_other_data_are_refused(copy: Path, place: Path) -> None:
    path = copy / "train.stats.npz"
    other = read_statistics(path)
    path.unlink()
    object.__setattr__(other, "pixels_id", "f" * 64)
    handover.write_statistics(other, path)
    with pytest.raises(UserError, match=r"is of other data \(pixels_id ffffffffffff, .*prep stats"):
        write_beton(copy / "train", place, "jpg", jobs=1)
    assert names_in(place.parent) == []


def test_validation_gets_no_statistics(prepared_set: Path, betons: Path) -> None:
    assert names_in(betons) == sorted([*ALL_FOUR, "val.beton", "val.json", "val.records.npz"])
    assert not (prepared_set / "val.stats.npz").exists()


def test_the_statistics_of_an_older_beton_do_not_stay(prepared_set: Path, place: Path) -> None:
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    place.unlink()
    written = write_beton(prepared_set / "val", place, "jpg", jobs=1)
    assert not written.has_statistics
    assert names_in(place.parent) == ["train.beton", "train.json", "train.records.npz"]


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["train.ffcv", "train", ".beton", "train.beton.gz"])
def test_another_ending_is_refused(prepared_set: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"should be called NAME\.beton"):
        write_beton(prepared_set / "train", tmp_path / name, "jpg", jobs=1)


def test_a_missing_folder_is_named(prepared_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*no/train\.beton: No such file"):
        write_beton(prepared_set / "train", tmp_path / "no" / "train.beton", "jpg", jobs=1)


@pytest.mark.parametrize("name", ALL_FOUR)
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_in_the_place_of_one_is_refused_before_any_work(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    path = place.with_name(name)
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    monkeypatch.setattr(write, "_write_file", lambda *_: pytest.fail("work was done"))
    said = rf"cannot write {path}: it is a {kind}; remove it, or give another name"
    with pytest.raises(UserError, match=said):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert names_in(place.parent) == [name]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_a_file_is_written_through(
    prepared_set: Path, betons: Path, place: Path, tmp_path: Path, there: bool
) -> None:
    """So that a beton may lie on another disk than what is beside it."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ALL_FOUR:
        if there:
            (other / name).write_text("old")
        place.with_name(name).symlink_to(other / name)
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert names_in(other) == names_in(place.parent) == ALL_FOUR
    for name in ALL_FOUR:
        assert place.with_name(name).is_symlink()
        assert (other / name).read_bytes() == (betons / name).read_bytes()


def test_the_card_of_another_split_is_not_overwritten(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.glob("*.*")}
    with pytest.raises(UserError, match=r"val\.beton would put its card over that of .*out/val"):
        write_beton(copy / "train", copy / "val.beton", "jpg", jobs=1)
    assert {path: path.read_bytes() for path in copy.glob("*.*")} == before


def test_the_beton_of_another_split_is_not_replaced(prepared_set: Path, place: Path) -> None:
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    before = {path.name: path.read_bytes() for path in place.parent.iterdir()}
    with pytest.raises(UserError, match="is of the split train, this would put val in its place"):
        write_beton(prepared_set / "val", place, "jpg", jobs=1)
    assert {path.name: path.read_bytes() for path in place.parent.iterdir()} == before
    write_beton(prepared_set / "train", place, "jpg", jobs=1)  # its own may be
    place.with_suffix(".json").write_text("no card")
    assert write_beton(prepared_set / "val", place, "jpg", jobs=1).card.split == "val"


@pytest.mark.parametrize("mode", ["raw", "jpg"])
def test_beside_its_own_split_one_card_serves_both(
    copy: Path, betons: Path, place: Path, mode: str
) -> None:
    write_beton(copy / "train", copy / "train.beton", mode, jobs=1)
    assert read_card(copy / "train.json").sha256 == sha256_of(copy / "train.beton")
    write_beton(copy / "train", place, "jpg", jobs=1)
    for name in ALL_FOUR:
        assert place.with_name(name).read_bytes() == (betons / name).read_bytes()


@pytest.mark.parametrize("moment", ["write_records", "write_statistics"])
def test_until_all_is_on_the_disk_a_beton_of_the_same_name_is_left_as_it_was(
    copy: Path, place: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write_beton(copy / "train", place, "jpg", jobs=1)
    before = {path: path.read_bytes() for path in place.parent.iterdir()}
    monkeypatch.setattr(handover, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_beton(copy / "train", place, "raw", jobs=1)
    partial = place.with_name("train.beton.partial")
    partial.unlink()  # which the same command would carry on
    assert {path: path.read_bytes() for path in place.parent.iterdir()} == before


def test_a_write_beside_its_own_split_that_fails_keeps_the_split(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_beton(copy / "train", copy / "train.beton", "jpg", jobs=1)
    monkeypatch.setattr(Journal, "cut_off", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_beton(copy / "train", copy / "train.beton", "raw", jobs=1)
    assert len(open_prepared(copy / "train")) == 18
    with pytest.raises(UserError, match=r"names no sha256: the writing of .*did not end"):
        handover.read_beton_card(copy / "train.beton")


def test_a_split_without_samples_is_refused(copy: Path, place: Path) -> None:
    card = read_card(copy / "train.json")
    object.__setattr__(card, "samples", 0)
    nothing = handover.pixels_id(np.zeros(0, np.int64), np.zeros((0, 32), np.uint8))
    object.__setattr__(card, "pixels_id", nothing)
    handover.write_card(card, copy / "train.json")
    prepared.write_manifest([prepared.SCHEMA.empty_table()], {}, copy / "train.parquet")
    with pytest.raises(UserError, match="holds no samples"):
        write_beton(copy / "train", place, "jpg", jobs=1)


DAMAGE: dict[str, Callable[[bytes], bytes] | None] = {
    "vanished": None,
    "empty": lambda data: b"",  # noqa: ARG005
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "other bytes": lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
}


@pytest.mark.parametrize("mode", ["jpg", "raw"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_failed_write_leaves_the_old_beton_as_it_was(
    copy: Path, place: Path, monkeypatch: pytest.MonkeyPatch, mode: str, damage: str
) -> None:
    """A prepared file vanishes or changes between the listing of the split and its reading."""
    write_beton(copy / "train", place, "jpg", jobs=1)
    before = {path: path.read_bytes() for path in place.parent.iterdir()}
    victim = open_prepared(copy / "train").places(9, 10)[0].path

    def listed_and_then_damaged(folder: Path) -> prepared.PreparedSplit:
        split = open_prepared(folder)
        change = DAMAGE[damage]
        victim.write_bytes(change(victim.read_bytes())) if change else victim.unlink()
        return split

    monkeypatch.setattr(prepared, "open_prepared", listed_and_then_damaged)
    with pytest.raises(UserError, match=rf"{victim.name} (cannot be read|has changed since)"):
        write_beton(copy / "train", place, mode, jobs=2)
    assert {path: path.read_bytes() for path in place.parent.iterdir()} == before


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_a_prepared_file_of_another_size_is_refused(copy: Path, place: Path, mode: str) -> None:
    card = read_card(copy / "train.json")
    object.__setattr__(card, "side", 128)
    handover.write_card(card, copy / "train.json")
    with pytest.raises(UserError, match=r"n90000001_0.* is no 128x128 colour JPEG; run `prep res"):
        write_beton(copy / "train", place, mode, jobs=1)
    assert names_in(place.parent) == []


def test_a_file_system_that_knows_the_cache_only_gets_the_same_bytes(
    prepared_set: Path, betons: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "open_direct", lambda path: os.open(path, os.O_RDWR))
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert sha256_of(place) == sha256_of(betons / "train.beton")


def test_pages_are_written_past_the_cache(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    written: list[int] = []

    def opening(path: Path) -> int:
        opened.append(open_direct(path))
        return opened[-1]

    def writing(file: int, data: memoryview, offset: int) -> None:
        written.append(file)
        write_at(file, data, offset)

    monkeypatch.setattr(write, "open_direct", opening)
    monkeypatch.setattr(page, "write_at", writing)
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert len(opened) == 1
    assert set(written) == set(opened)


@pytest.mark.parametrize(
    ("offset", "named"),
    [
        (40, "the header or metadata reads back otherwise"),
        (beton.PAGE_SIZE + 9, "sample 0 reads back with another byte at offset 8388617; the disk"),
        (beton.PAGE_SIZE * 2 - 1, "sample 17 reads back with another byte at offset 16777215"),
        (beton.PAGE_SIZE * 2 + 9, "the table reads back otherwise"),
    ],
)
def test_what_reads_back_wrong_is_refused(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch, offset: int, named: str
) -> None:
    """A disk that changes one byte between writing and reading."""

    def with_a_flip(file: int, data: memoryview, start: int) -> None:
        changed = aligned(len(data))
        changed[:] = np.frombuffer(data, np.uint8)
        if start <= offset < start + len(changed):
            changed[offset - start] ^= 8
        os.pwrite(file, changed.data, start)

    monkeypatch.setattr(write, "write_at", with_a_flip)
    monkeypatch.setattr(page, "write_at", with_a_flip)
    with pytest.raises(UserError, match=named):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert names_in(place.parent) == []


def test_raw_samples_larger_than_a_page_name_what_raw_has(copy: Path, place: Path) -> None:
    card = dataclasses.replace(read_card(copy / "train.json"), side=1673)
    handover.write_card(card, copy / "train.json")
    said = (
        "--mode raw: pictures of 1673x1673 have 8396787 bytes, .* prepare with --size 1672 or less"
    )
    with pytest.raises(UserError, match=said):
        write_beton(copy / "train", place, "raw", jobs=1)


def test_a_second_writer_is_refused(prepared_set: Path, place: Path) -> None:
    with (
        whole_file(place),
        pytest.raises(UserError, match=r"train\.beton is being written by another run"),
    ):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)


@pytest.mark.parametrize(
    ("part", "full_at", "kept"),
    [(0.2, "beton", 0), (0.7, "beton", 12), (1.0, "records.npz", 18), (1.5, "stats.npz", 18)],
)
def test_a_full_disk_is_named_and_room_lets_it_go_on(
    prepared_set: Path,
    place: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: float,
    full_at: str,
    kept: int,
) -> None:
    """Room for a part of the beton and its journal, for both, for the records too."""
    monkeypatch.setattr(beton, "PAGE_SIZE", 1 << 16)
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    blocks = -(-(place.stat().st_size + 32 + 18 * 4) // 4096)
    filler, path = fill_disk(small_disk, int(part * blocks)), small_disk / "train.beton"
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_beton(prepared_set / "train", path, "jpg", jobs=1)
    assert caught.value.filename == str(small_disk / f"train.{full_at}")
    assert names_in(small_disk) == [filler.name, "train.beton.partial"]
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert write_beton(prepared_set / "train", path, "jpg", jobs=1).kept == kept
    assert names_in(small_disk) == ALL_FOUR
    for name in ALL_FOUR:
        assert (small_disk / name).read_bytes() == place.with_name(name).read_bytes()


def test_a_folder_that_may_not_be_written_is_named(prepared_set: Path, small_disk: Path) -> None:
    """By remounting: root may write a folder whose mode forbids it."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"cannot write .*train\.beton: Read-only file system"):
        write_beton(prepared_set / "train", small_disk / "train.beton", "jpg", jobs=1)


def test_a_pipe_in_the_place_of_a_prepared_file_keeps_nobody_waiting(
    copy: Path, place: Path
) -> None:
    victim = open_prepared(copy / "train").places(9, 10)[0].path
    victim.unlink()
    os.mkfifo(victim)
    with pytest.raises(UserError, match=victim.name):
        write_beton(copy / "train", place, "jpg", jobs=2)


@pytest.mark.parametrize("fault", [MemoryError, RuntimeError, OSError, KeyboardInterrupt])
def test_a_thread_that_fails_ends_it(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    """Whatever it is: an exception of a thread is raised by the command, which waits for none."""
    monkeypatch.setattr(beton, "PAGE_SIZE", SMALL_PAGE)
    real = page.ensure_page

    def failing(target: page.Target, this: beton.Page, *rest: Any) -> object:
        if this.first == 7:
            raise fault(5, "of a thread")
        return real(target, this, *rest)

    monkeypatch.setattr(write, "ensure_page", failing)
    with pytest.raises(fault, match="of a thread"):
        write_beton(prepared_set / "train", place, "raw", jobs=3)
    assert set(names_in(place.parent)) <= {"train.beton.partial"}
    assert place.with_name("train.beton.partial").exists() == (fault is KeyboardInterrupt)


def test_ctrl_c_leaves_no_thread_that_writes(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is closed by then, and its number may be another file's."""
    monkeypatch.setattr(beton, "PAGE_SIZE", SMALL_PAGE)
    before = threading.active_count()

    @contextlib.contextmanager
    def interrupted(*_: object) -> Iterator[Callable[[int], None]]:
        yield interrupt

    monkeypatch.setattr(write, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        write_beton(prepared_set / "train", place, "raw", jobs=3)
    assert threading.active_count() == before
    del caught  # its traceback has kept the frames alive until here


# --------------------------------------------------------------------------- decoding


def spoil_a_jpeg(copy: Path) -> str:
    """Make training sample 4 a JPEG whose second half is missing, and manifest and card say so.

    Returns its name.
    """
    path = copy / "train.parquet"
    table = pq.read_table(path)
    row = 4
    victim = copy / "train" / table["name"][row].as_py()
    data = victim.read_bytes()
    data = data[: len(data) // 2].ljust(len(data), b"\xff")
    victim.write_bytes(data)
    values = {"crc32": zlib.crc32(data), "sha256": hashlib.sha256(data).digest()}
    for name, value in values.items():
        column = table[name].to_pylist()
        column[row] = value
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.array(column, table.schema.field(name).type))
    pq.write_table(table, path)
    labels = table["label"].to_numpy().astype(np.int64)
    pixels_id = handover.pixels_id(labels, prepared.digests(table["sha256"]))
    card = dataclasses.replace(read_card(copy / "train.json"), pixels_id=pixels_id)
    handover.write_card(card, copy / "train.json")
    (copy / "train.stats.npz").unlink()
    return victim.name


def test_with_decode_a_jpeg_that_does_not_decode_is_refused(copy: Path, place: Path) -> None:
    """Its checksum is the manifest's: it was prepared so."""
    name = spoil_a_jpeg(copy)
    with pytest.raises(UserError, match=rf"sample 4, .*{name}, cannot be decoded"):
        write_beton(copy / "train", place, "jpg", jobs=1, decode=True)
    assert names_in(place.parent) == []
    write_beton(copy / "train", place, "jpg", jobs=1)
