"""The picture of predictions: a PNG that opens, of the size that its contents ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import ODD_NAMES
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from train import figures
from train.classify import Prediction
from train.figures import DPI, MOST, ROW_HEIGHT, save_predictions

WIDTH, HEIGHT = 286, 440  # pixels of a picture over its bars: 2.6 x 4.0 inches at 110 a dot


def prediction(name: str = "a.jpg", names: tuple[str, ...] = ("cat", "dog", "owl")) -> Prediction:
    pixels = np.full((256, 256, 3), (200, 30, 40), np.uint8)
    shares = [0.7, 0.2, 0.1][: len(names)]
    return Prediction(Path(name), pixels, list(range(len(names))), list(names), shares)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 5, 1), (6, 5, 2), (11, 5, 3)]
)
def test_the_size_follows_from_the_number_of_pictures(
    tmp_path: Path, count: int, columns: int, rows: int
) -> None:
    path = tmp_path / "shown.png"
    save_predictions([prediction()] * count, [None] * count, path)
    assert pixels_of(path).shape == (HEIGHT * rows, WIDTH * columns, 3)
    assert [each.name for each in tmp_path.iterdir()] == ["shown.png"]


def test_as_many_are_drawn_as_matplotlib_can() -> None:
    assert MOST / 5 * ROW_HEIGHT * DPI < 1 << 16
    assert (MOST / 5 + 1) * ROW_HEIGHT * DPI >= 1 << 16


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels - colour).sum(axis=2) < 12).sum() > 200)


# matplotlib's tab colours at alpha 0.55 over white.
GREEN, RED, BLUE = (134, 201, 134), (232, 137, 138), (132, 181, 213)


@pytest.mark.parametrize(
    ("truth", "shown", "hidden"),
    [
        ("cat", [GREEN, BLUE], [RED]),  # right
        ("dog", [RED, GREEN, BLUE], []),  # second
        ("wolf", [RED, BLUE], [GREEN]),  # not among them
        (None, [BLUE], [RED, GREEN]),  # unknown
    ],
)
def test_colours_say_right_and_wrong(
    tmp_path: Path,
    truth: str | None,
    shown: list[tuple[int, int, int]],
    hidden: list[tuple[int, int, int]],
) -> None:
    path = tmp_path / "shown.png"
    save_predictions([prediction()], [truth], path)
    pixels = pixels_of(path)
    assert [has_colour(pixels, colour) for colour in shown] == [True] * len(shown)
    assert [has_colour(pixels, colour) for colour in hidden] == [False] * len(hidden)


def test_the_picture_itself_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "shown.png"
    save_predictions([prediction()], [None], path)
    red = (np.abs(pixels_of(path) - (200, 30, 40)).sum(axis=2) < 12).sum()
    assert red > 100 * 100


@pytest.mark.parametrize(
    "name", ["$x$", r"$\frac$", "$_$ ^", "100% $ and $", "{}", "a_b^c", *ODD_NAMES]
)
def test_names_are_text_of_one_line_and_no_formulas(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shown.png"
    for shown, truth in ((prediction(f"{name}.jpg", (name, "dog")), None), (prediction(), name)):
        save_predictions([shown], [truth], path)
        pixels = pixels_of(path)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert (np.abs(pixels - (200, 30, 40)).sum(axis=2) < 12).sum() > 200 * 200


@pytest.mark.parametrize("name", ["W" * 60, "i" * 200, "a long name, of a class, with words " * 3])
def test_long_names_stay_below_their_own_picture(tmp_path: Path, name: str) -> None:
    """Nothing is drawn between two pictures nor at the edge, and the percentage stays."""
    path = tmp_path / "shown.png"
    long = prediction(names=(name, name, name))
    save_predictions([long, long], [name, name], path)
    pixels = pixels_of(path)
    assert pixels.shape == (HEIGHT, 2 * WIDTH, 3)
    for edge in (slice(0, 2), slice(WIDTH - 2, WIDTH + 2), slice(-2, None)):
        assert (pixels[:, edge] == 255).all()
    assert (np.abs(pixels - (200, 30, 40)).sum(axis=2) < 12).sum() > 2 * 200 * 200
    renderer = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()
    for size, behind in ((8, "  70%"), (9, "")):
        shown = figures._short(name, behind, size, renderer)
        assert shown.endswith(f"…{behind}")
        assert len(shown) > 15
    assert figures._short("owl", "  70%", 8, renderer) == "owl  70%"


def test_an_old_picture_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "shown.png"
    path.write_bytes(b"old")
    save_predictions([prediction()], [None], path)
    assert pixels_of(path).shape == (HEIGHT, WIDTH, 3)
    assert [each.name for each in tmp_path.iterdir()] == ["shown.png"]
