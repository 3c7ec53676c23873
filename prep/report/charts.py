"""Charts as numbers for the page's SVG: sizes of originals, samples a class.

SVG takes the page's colours, light or dark, and stays sharp at any width. Places are in units of
the charts' viewBox, from its upper left corner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 22, 34  # margins
CELL = 3  # a scatter's pictures are counted in cells of as many units: 9,000 of them at most
SHADES = 5  # from a cell of one picture to the fullest one
LABEL = 34  # units from one label of an axis to the next, at least


@dataclasses.dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclasses.dataclass(frozen=True)
class Scatter:
    """Widths and heights of originals, both axes logarithmic and alike."""

    shades: list[tuple[float, str]]  # opacity, and an SVG path of points as full as that
    fullest: int  # pictures at one point
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    side_x: float | None  # where an original is as wide as a prepared picture; None: outside
    side_y: float | None


def scatter(widths: npt.NDArray[np.int32], heights: npt.NDArray[np.int32], side: int) -> Scatter:
    """Of the originals' sizes in pixels [N], N at least one; all of them count."""
    both = np.concatenate([widths, heights])
    low, high = math.log2(both.min()) - 0.2, math.log2(both.max()) + 0.2

    def across(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        share = (np.log2(value) - low) / (high - low)
        return np.asarray(LEFT + share * (WIDTH - LEFT - RIGHT))

    def down(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        share = (np.log2(value) - low) / (high - low)
        return np.asarray(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM))

    cells = np.stack([across(widths) // CELL, down(heights) // CELL], axis=1).astype(np.int16)
    places, counts = np.unique(cells, axis=0, return_counts=True)
    fullest = int(counts.max())
    shade_of = (SHADES - 1) * np.log(counts) / max(math.log(fullest), 1e-9)  # [cells]
    shades = []
    for shade in range(SHADES):
        there = places[shade_of.round() == shade] * CELL + CELL / 2
        if len(there):
            path = "".join(f"M{x:g} {y:g}h0" for x, y in there.tolist())
            shades.append(((shade + 2) / (SHADES + 1), path))
    apart = math.ceil(LABEL * (high - low) / (HEIGHT - TOP - BOTTOM))  # octaves between labels
    steps = range(math.ceil(low), math.floor(high) + 1)
    powers = [1 << power for power in steps if power >= 0 and power % apart == 0] or [
        int(both.min())
    ]
    inside = low <= math.log2(side) <= high
    return Scatter(
        shades=shades,
        fullest=fullest,
        x_ticks=[Tick(float(across(power)), f"{power}") for power in powers],
        y_ticks=[Tick(float(down(power)), f"{power}") for power in powers],
        side_x=float(across(side)) if inside else None,
        side_y=float(down(side)) if inside else None,
    )


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Samples a class, from the class with most to the one with fewest, as lines."""

    samples: str  # points of an SVG polyline
    known: str  # the same of the data set's manifest; "" where it is not known
    y_ticks: list[Tick]


def ranked(samples: Sequence[int], known: Sequence[int] | None) -> Ranked:
    """Two classes or more."""
    top = max([*samples, *(known or ()), 1])

    def line(counts: Sequence[int]) -> str:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return " ".join(
            f"{LEFT + rank / (len(counts) - 1) * width:.1f},"
            f"{HEIGHT - BOTTOM - count / top * height:.1f}"
            for rank, count in enumerate(sorted(counts, reverse=True))
        )

    height = HEIGHT - TOP - BOTTOM
    ticks = [
        Tick(HEIGHT - BOTTOM - value / top * height, f"{value:,}")
        for value in sorted({0, top // 2, top})
    ]
    return Ranked(line(samples), line(known) if known else "", ticks)
