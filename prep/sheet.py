"""Pictures of pictures: contact sheets."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from prep import images
from prep.beton import Beton
from prep.files import whole_file
from prep.handover import Card
from prep.program import UserError, visible

CELL = 128  # pixels: a picture's side on a sheet
CAPTION = 18  # pixels under it
COLUMNS = 10
GAP = 4  # pixels


def contact_sheet(
    pictures: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str]
) -> Image.Image:
    """Lay pictures (uint8 [H,W,3]) out in rows of ten, each with its caption."""
    rows = -(-len(pictures) // COLUMNS)
    width = COLUMNS * (CELL + GAP) + GAP
    height = rows * (CELL + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    letters = font(11)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + place % COLUMNS * (CELL + GAP)
        top = GAP + place // COLUMNS * (CELL + CAPTION + GAP)
        thumbnail = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
        sheet.paste(thumbnail, (left, top))
        text = _fit(caption, draw, letters)
        draw.text((left, top + CELL + 2), text, fill="black", font=letters)
    return sheet


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """matplotlib's DejaVu Sans, which has accented and Greek letters; else Pillow's own."""
    package = importlib.util.find_spec("matplotlib")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def _fit(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> str:
    text = visible(text)[:CELL]  # a letter is wider than a pixel
    if draw.textlength(text, font) <= CELL:
        return text
    while text and draw.textlength(text + "…", font) > CELL:
        text = text[:-1]
    return text + "…"


def beton_sheet(opened: Beton, card: Card, count: int = 50) -> Image.Image:
    """A contact sheet of `count` samples, spread evenly over the classes."""
    chosen = _spread(opened.labels, count)
    pictures, captions = [], []
    with opened.path.open("rb") as file:
        for sample in chosen:
            file.seek(int(opened.layout.ptr[sample]))
            data = file.read(int(opened.layout.size[sample]))
            try:
                pictures.append(_pixels(data, card))
                captions.append(card.name_of(int(opened.labels[sample])))
            except (ValueError, IndexError) as error:
                raise UserError(
                    f"{opened.path}: sample {sample} cannot be shown ({error}); `prep verify "
                    f"{opened.path}` says what is damaged"
                ) from error
    return contact_sheet(pictures, captions)


def _spread(labels: npt.NDArray[np.int64], count: int) -> list[int]:
    """Samples taken in turn from each class, in class order: the first of each, the second, ..."""
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(by_class) > count:  # more classes than places: take every so many
        by_class = [by_class[i * len(by_class) // count] for i in range(count)]
    per_class = -(-count // len(by_class))
    chosen = [
        samples[i * len(samples) // min(per_class, len(samples))]
        for samples in by_class
        for i in range(min(per_class, len(samples)))
    ]
    return [int(sample) for sample in chosen[:count]]


def _pixels(data: bytes, card: Card) -> npt.NDArray[np.uint8]:
    if card.mode == "raw":
        return np.frombuffer(data, np.uint8).reshape(card.side, card.side, 3)
    return images.decode_as_ffcv(data)


def save_png(picture: Image.Image, path: Path) -> None:
    with whole_file(path) as partial:
        picture.save(partial, format="PNG")
