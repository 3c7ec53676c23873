"""`prep write-beton`: the prepared bytes as they are, the same file each time, or none."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import fill_disk

from prep import beton, handover, prepared, write
from prep.files import whole_file
from prep.handover import read_card, read_records, read_statistics
from prep.images import decode_as_ffcv
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


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


ALL_FOUR = ["train.beton", "train.json", "train.records.npz", "train.stats.npz"]

# --------------------------------------------------------------------------- what is in it


def test_a_sample_s_bytes_are_the_prepared_file_s(prepared_set: Path, betons: Path) -> None:
    split = open_prepared(prepared_set / "train")
    opened = beton.open_beton(betons / "train.beton")
    places = split.places(0, len(split))
    for (sample, data), place in zip(beton.records(opened), places, strict=True):
        assert data == place.path.read_bytes()
        assert opened.labels[sample] == sorted(
            p.name for p in (prepared_set / "train").iterdir()
        ).index(place.path.parent.name)


def test_raw_samples_are_the_pixels_that_ffcv_would_decode(prepared_set: Path, place: Path) -> None:
    card, _ = write_beton(prepared_set / "train", place, "raw", jobs=2)
    split = open_prepared(prepared_set / "train")
    opened = beton.open_beton(place)
    places = split.places(0, len(split))
    for (_, data), sample in zip(beton.records(opened), places, strict=True):
        assert data == decode_as_ffcv(sample.path.read_bytes()).tobytes()
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
    monkeypatch.setattr(write, "CHUNK", 3)
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
    _, has_statistics = write_beton(copy / "train", place, "jpg", jobs=1)
    assert not has_statistics
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
    _, has_statistics = write_beton(prepared_set / "val", place, "jpg", jobs=1)
    assert not has_statistics
    assert names_in(place.parent) == ["train.beton", "train.json", "train.records.npz"]


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["train.ffcv", "train", ".beton", "train.beton.gz"])
def test_another_ending_is_refused(prepared_set: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"should be called NAME\.beton"):
        write_beton(prepared_set / "train", tmp_path / name, "jpg", jobs=1)


def test_a_missing_folder_is_named(prepared_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*no/train\.beton: No such file"):
        write_beton(prepared_set / "train", tmp_path / "no" / "train.beton", "jpg", jobs=1)


def test_a_folder_in_the_place_of_the_beton_is_an_error(prepared_set: Path, place: Path) -> None:
    place.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert names_in(place) == []


def test_the_card_of_another_split_is_not_overwritten(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.glob("*.*")}
    with pytest.raises(UserError, match=r"val\.beton would put its card over that of .*out/val"):
        write_beton(copy / "train", copy / "val.beton", "jpg", jobs=1)
    assert {path: path.read_bytes() for path in copy.glob("*.*")} == before


@pytest.mark.parametrize("mode", ["raw", "jpg"])
def test_beside_its_own_split_one_card_serves_both(
    copy: Path, betons: Path, place: Path, mode: str
) -> None:
    write_beton(copy / "train", copy / "train.beton", mode, jobs=1)
    assert read_card(copy / "train.json").sha256 == sha256_of(copy / "train.beton")
    write_beton(copy / "train", place, "jpg", jobs=1)
    for name in ALL_FOUR:
        assert place.with_name(name).read_bytes() == (betons / name).read_bytes()


def test_a_write_beside_its_own_split_that_fails_keeps_the_split(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_beton(copy / "train", copy / "train.beton", "jpg", jobs=1)
    monkeypatch.setattr(handover, "write_records", interrupt)
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


@pytest.mark.parametrize("mode", ["jpg", "raw"])
@pytest.mark.parametrize("damage", ["vanished", "changed"])
def test_a_failed_write_leaves_the_old_beton_as_it_was(
    copy: Path, place: Path, mode: str, damage: str
) -> None:
    write_beton(copy / "train", place, "jpg", jobs=1)
    before = {path: path.read_bytes() for path in place.parent.iterdir()}
    victim = open_prepared(copy / "train").places(9, 10)[0].path
    victim.unlink() if damage == "vanished" else victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(UserError, match=victim.name):
        write_beton(copy / "train", place, mode, jobs=2)
    assert {path: path.read_bytes() for path in place.parent.iterdir()} == before


def test_a_killed_write_leaves_no_beton_and_the_next_one_is_whole(
    prepared_set: Path, betons: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.with_name("train.beton.partial").write_bytes(b"x" * 40_000_000)
    assert not place.exists()
    monkeypatch.setattr(write, "_read_back", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert names_in(place.parent) == []
    monkeypatch.undo()
    write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert place.read_bytes() == (betons / "train.beton").read_bytes()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_prepared_file_of_another_size_is_refused(copy: Path, place: Path) -> None:
    card = read_card(copy / "train.json")
    object.__setattr__(card, "side", 128)
    handover.write_card(card, copy / "train.json")
    with pytest.raises(UserError, match="sample 0 is no 128x128 colour JPEG"):
        write_beton(copy / "train", place, "jpg", jobs=1)
    assert names_in(place.parent) == []


def test_what_reads_back_wrong_is_refused(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that changes one byte between writing and reading."""
    real = write._read_back

    def after_a_flip(path: Path, *arguments: object) -> None:
        offset = int(beton.open_beton(path).layout.ptr[7]) + 99
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 8]))
        real(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(write, "_read_back", after_a_flip)
    with pytest.raises(UserError, match="sample 7 reads back with another crc32"):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)
    assert names_in(place.parent) == []


def test_a_second_writer_is_refused(prepared_set: Path, place: Path) -> None:
    with (
        whole_file(place),
        pytest.raises(UserError, match=r"train\.beton is being written by another run"),
    ):
        write_beton(prepared_set / "train", place, "jpg", jobs=1)


def test_a_full_disk_is_named_and_leaves_nothing(prepared_set: Path, small_disk: Path) -> None:
    filler = fill_disk(small_disk, 50)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_beton(prepared_set / "train", small_disk / "train.beton", "jpg", jobs=1)
    assert caught.value.filename == str(small_disk / "train.beton")
    assert names_in(small_disk) == [filler.name]
