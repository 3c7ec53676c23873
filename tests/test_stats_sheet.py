"""The picture of statistics: each part where it belongs, and of the right colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import noise_images
from PIL import Image

from prep import stats_sheet
from prep.handover import Statistics, read_statistics
from prep.stats_sheet import noisy, ramp, statistics_sheet
from prep.stats_source import open_training


@pytest.fixture
def statistics(prepared_set: Path) -> Statistics:
    return read_statistics(prepared_set / "train.stats.npz")


def test_noise_adds_one_colour_along_the_axes(statistics: Statistics) -> None:
    grey = np.full((4, 4, 3), 128, np.uint8)
    alphas = np.array([0.1, -0.3, 0.2])
    colour = sum(
        alphas[i] * np.sqrt(statistics.eigenvalues[i]) * statistics.eigenvectors[:, i]
        for i in range(3)
    )
    assert np.abs(colour).max() > 5
    assert (noisy(grey, statistics, alphas) == np.rint(128 + colour)).all()
    assert np.array_equal(noisy(grey, statistics, np.zeros(3)), grey)


def test_noise_does_not_wrap_round(statistics: Statistics) -> None:
    colour = 50 * statistics.standard_deviations[0] * statistics.eigenvectors[:, 0]
    assert np.abs(colour).min() > 255
    made = noisy(noise_images(1, 16)[0], statistics, np.array([50.0, 0, 0]))
    assert (made == np.where(colour > 0, 255, 0)).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_leads_through_the_mean_from_end_to_end(statistics: Statistics, axis: int) -> None:
    made = ramp(statistics, axis, 61)
    assert made.shape == (1, 61, 3)
    mean, vector = statistics.channel_mean, statistics.eigenvectors[:, axis]
    deviation = statistics.standard_deviations[axis]
    for place, step in ((0, -3), (20, -1), (30, 0), (60, 3)):
        expected = np.clip(mean + step * deviation * vector, 0, 255)
        assert np.abs(made[0, place] - expected).max() <= 0.5


def test_the_sheet_shows_mean_ramps_and_noise(statistics: Statistics, prepared_set: Path) -> None:
    picture = open_training(prepared_set / "train").picture(0)
    made = statistics_sheet(statistics, picture)
    assert made.size == (stats_sheet.WIDTH, stats_sheet.HEIGHT)
    pixels = np.asarray(made)
    left, top = stats_sheet.MARGIN, stats_sheet.MARGIN + stats_sheet.HEADING
    side = stats_sheet.MEAN
    shown = Image.fromarray(pixels[top : top + side, left : left + side]).resize((256, 256))
    assert np.abs(np.asarray(shown) - statistics.mean_image).mean() < 2
    for axis in range(3):
        row = top + axis * stats_sheet.RAMP_STEP + stats_sheet.LINE + stats_sheet.RAMP_HEIGHT // 2
        across = pixels[row, stats_sheet.RAMP_LEFT : stats_sheet.WIDTH - stats_sheet.MARGIN]
        expected = ramp(statistics, axis, stats_sheet.RAMP_WIDTH)[0]
        assert np.array_equal(across[1:-1], expected[1:-1])
    cell, gap = stats_sheet.CELL, stats_sheet.GAP
    for row, axes in enumerate([[0], [1], [2], [0, 1, 2]]):
        for column, draw in enumerate([-3, -1, 0, 1, 3]):
            alphas = np.zeros(3)
            alphas[axes] = 0.1 * draw
            expected = Image.fromarray(noisy(picture, statistics, alphas)).resize(
                (cell, cell), Image.Resampling.LANCZOS
            )
            left = stats_sheet.MARGIN + stats_sheet.LABELS + column * (cell + gap)
            top = stats_sheet.GRID_TOP + row * (cell + gap)
            assert np.array_equal(pixels[top : top + cell, left : left + cell], expected)


@pytest.mark.parametrize("side", [8, 300])
def test_pictures_of_any_side_fill_the_same_places(statistics: Statistics, side: int) -> None:
    from dataclasses import replace

    small = replace(statistics, mean_image=np.zeros((side, side, 3), np.float32))
    made = statistics_sheet(small, noise_images(1, side)[0])
    assert made.size == (stats_sheet.WIDTH, stats_sheet.HEIGHT)
