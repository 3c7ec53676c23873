"""Contact sheets: which samples they show, where, and that damage is named."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ODD_NAMES
from PIL import Image, ImageDraw, ImageFont

from prep import sheet
from prep.beton import METADATA_START, SAMPLE, open_beton
from prep.handover import read_card
from prep.images import decode_as_ffcv
from prep.program import UserError
from prep.write import write_beton


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (10, 1), (11, 2), (30, 3)])
def test_pictures_lie_in_rows_of_ten(count: int, rows: int) -> None:
    pictures = [np.full((20, 20, 3), number, np.uint8) for number in range(count)]
    made = sheet.contact_sheet(pictures, [str(number) for number in range(count)])
    assert made.size == (10 * 132 + 4, rows * 150 + 4)
    pixels = np.asarray(made)
    for number in range(count):
        left, top = 4 + number % 10 * 132, 4 + number // 10 * 150
        assert (pixels[top : top + 128, left : left + 128] == number).all()


def test_a_long_caption_is_cut_to_its_cell() -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    font = ImageFont.load_default(size=11)
    assert sheet._fit("cat", draw, font) == "cat"
    cut = sheet._fit("a very long name of some kind of bird " * 3, draw, font)
    assert cut.endswith("…")
    assert draw.textlength(cut, font) <= sheet.CELL


@pytest.mark.parametrize("name", [*ODD_NAMES, "", "i" * 100_000])
def test_any_name_is_a_caption_of_one_line(name: str) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    pixels = np.asarray(sheet.contact_sheet([picture] * 3, [name, "x", ""]))
    assert pixels.shape == (154, 1324, 3)
    outside = pixels.copy()
    outside[: 4 + sheet.CELL + sheet.CAPTION, : 4 + 2 * (sheet.CELL + 4)] = 255
    outside[4 : 4 + sheet.CELL, 4 + 2 * (sheet.CELL + 4) :][:, : sheet.CELL] = 255
    assert (outside == 255).all()
    cell = pixels[4 + sheet.CELL : -4, : 4 + sheet.CELL]
    assert (cell < 128).any() == bool(name)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 50])
def test_samples_are_spread_evenly_over_the_classes(count: int) -> None:
    labels = np.repeat(np.arange(4), 10)
    chosen = sheet._spread(labels, count)
    assert len(set(chosen)) == len(chosen) == min(count, 40)
    assert max(Counter(labels[chosen].tolist()).values()) <= -(-count // 4)


def test_more_classes_than_places_are_passed_over_evenly() -> None:
    labels = np.arange(1000)
    assert sheet._spread(labels, 50) == list(range(0, 1000, 20))


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_a_beton_s_sheet_shows_its_pictures(prepared_set: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.beton"
    card = write_beton(prepared_set / "train", path, mode, jobs=1).card
    opened = open_beton(path)
    made = sheet.beton_sheet(opened, card, count=6)
    first = sorted((prepared_set / "train").rglob("*.JPEG"))[0]
    picture = Image.fromarray(decode_as_ffcv(first.read_bytes()))
    thumbnail = picture.resize((128, 128), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(made)[4:132, 4:132], np.asarray(thumbnail))
    assert made.size == (10 * 132 + 4, 154)


@pytest.mark.parametrize("damage", ["bytes", "label"])
def test_a_damaged_sample_is_named(betons: Path, tmp_path: Path, damage: str) -> None:
    path = Path(shutil.copytree(betons, tmp_path / "b")) / "train.beton"
    opened = open_beton(path)
    with path.open("r+b") as file:
        if damage == "bytes":
            file.seek(int(opened.layout.ptr[0]))
            file.write(bytes(500))
        else:
            file.seek(METADATA_START + SAMPLE.itemsize * 17 + 16)
            file.write(np.int64(77).tobytes())
    sample = {"bytes": 0, "label": 17}[damage]
    card = read_card(path.with_suffix(".json"))
    with pytest.raises(UserError, match=rf"sample {sample} cannot be shown .*`prep verify"):
        sheet.beton_sheet(open_beton(path), card)


def test_a_png_is_saved_whole_whatever_its_name(tmp_path: Path) -> None:
    sheet.save_png(Image.new("RGB", (3, 2)), tmp_path / "picture.x")
    with Image.open(tmp_path / "picture.x") as opened:
        assert (opened.format, opened.size) == ("PNG", (3, 2))
    with pytest.raises(UserError, match=r"cannot write .*no/p\.png"):
        sheet.save_png(Image.new("RGB", (3, 2)), tmp_path / "no" / "p.png")
