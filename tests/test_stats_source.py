"""Where statistics are taken: equal from the prepared set and from its betons; damage is named."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from prep import handover, images, stats
from prep.beton import METADATA_START, SAMPLE, open_beton
from prep.handover import read_card, read_records
from prep.program import UserError
from prep.stats_source import open_training
from prep.write import write_beton


@pytest.fixture
def copy(betons: Path, tmp_path: Path) -> Path:
    """train.beton and what lies beside it but statistics, and val's; for a test to change."""
    folder = Path(shutil.copytree(betons, tmp_path / "betons"))
    (folder / "train.stats.npz").unlink()
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_beton_gives_the_bytes_of_the_prepared_set(
    prepared_set: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(stats, "UNIT_SIZE", 7)
    samples, statistics, _ = stats.measure(copy / "train.beton", jobs)
    assert samples.output == copy / "train.stats.npz"
    assert samples.output.read_bytes() == (prepared_set / "train.stats.npz").read_bytes()
    assert statistics.pixels_id == samples.card.pixels_id


def test_a_raw_beton_gives_them_too(prepared_set: Path, tmp_path: Path) -> None:
    write_beton(prepared_set / "train", tmp_path / "raw.beton", "raw", jobs=1)
    (tmp_path / "raw.stats.npz").unlink()
    samples, _, _ = stats.measure(tmp_path / "raw.beton", jobs=1)
    assert samples.output.read_bytes() == (prepared_set / "train.stats.npz").read_bytes()


def test_raw_pixels_are_of_the_decoder_that_the_card_names(
    prepared_set: Path, tmp_path: Path
) -> None:
    write_beton(prepared_set / "train", tmp_path / "raw.beton", "raw", jobs=1)
    card = read_card(tmp_path / "raw.json")
    tools = {
        tool: "another one" if version == images.FFCV_DECODER else version
        for tool, version in card.tools.items()
    }
    handover.write_card(dataclasses.replace(card, tools=tools), tmp_path / "raw.json")
    assert open_training(tmp_path / "raw.beton").decoder == "another one"


@pytest.mark.parametrize("mode", ["prepared", "jpg", "raw"])
def test_one_picture(prepared_set: Path, tmp_path: Path, mode: str) -> None:
    source = prepared_set / "train"
    if mode != "prepared":
        source = tmp_path / "x.beton"
        write_beton(prepared_set / "train", source, mode, jobs=1)
    files = sorted((prepared_set / "train").rglob("*.JPEG"))
    expected = images.decode_as_ffcv(files[7].read_bytes())
    assert np.array_equal(open_training(source).picture(7), expected)


# --------------------------------------------------------------------------- refusals


def test_a_beton_of_validation_is_refused(copy: Path) -> None:
    with pytest.raises(UserError, match=r"val\.beton is the val split; .*only: give its beton"):
        stats.measure(copy / "val.beton", jobs=1)
    assert not (copy / "val.stats.npz").exists()


def test_a_beton_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.beton does not exist"):
        open_training(tmp_path / "no.beton")


def test_a_folder_called_beton_is_a_folder(prepared_set: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared_set, tmp_path / "out")
    for name in ("", ".json", ".parquet"):
        (tmp_path / "out" / f"train{name}").rename(tmp_path / f"t.beton{name}")
    assert len(open_training(tmp_path / "t.beton")) == 18


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_a_changed_record_is_named(prepared_set: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "train.beton"
    write_beton(prepared_set / "train", path, mode, jobs=1)
    (tmp_path / "train.stats.npz").unlink()
    offset = int(open_beton(path).layout.ptr[11])
    with path.open("r+b") as file:
        file.seek(offset + 300)
        byte = file.read(1)[0]
        file.seek(offset + 300)
        file.write(bytes([byte ^ 1]))
    said = (
        rf"train\.beton: the record at offset {offset} has changed .*`prep verify .*train\.beton`"
    )
    with pytest.raises(UserError, match=said):
        stats.measure(path, jobs=1)
    assert not (tmp_path / "train.stats.npz").exists()


@pytest.mark.parametrize("what", ["records", "card", "mode", "metadata"])
def test_files_of_another_make_are_refused(copy: Path, what: str) -> None:
    path = copy / "train.beton"
    if what == "records":
        shutil.copy(copy / "val.records.npz", copy / "train.records.npz")
    elif what == "card":
        card = read_card(copy / "train.json")
        fewer = dataclasses.replace(card, samples=17)
        handover.write_card(fewer, copy / "train.json")
    elif what == "mode":
        card = dataclasses.replace(read_card(copy / "train.json"), mode="proportion")
        handover.write_card(card, copy / "train.json")
    else:
        with path.open("r+b") as file:
            file.seek(METADATA_START + 3 * SAMPLE.itemsize + 2)  # the height of sample 3
            file.write(np.uint16(255).tobytes())
    with pytest.raises(
        UserError, match=r"not of one make; (`prep verify .*train\.beton`|copy all)"
    ):
        open_training(path)


def test_a_beton_that_vanishes_is_named(copy: Path) -> None:
    samples = open_training(copy / "train.beton")
    (copy / "train.beton").unlink()
    with pytest.raises(UserError, match=r"train\.beton cannot be read: No such file"):
        samples.picture(0)


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_a_record_of_another_size_is_named(prepared_set: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.beton"
    write_beton(prepared_set / "train", path, mode, jobs=1)
    samples = open_training(path)
    place = samples.places(2, 3)[0]
    assert place.crc32 == read_records(tmp_path / "x.records.npz").crc32[2]
    with pytest.raises(UserError, match=r"x\.beton.* its card says "):
        samples.read(place, np.empty((512, 512, 3), np.uint8))
