"""Stage two: mean image, channel means, RGB covariance and its principal axes.

Of every pixel of the training split (Krizhevsky et al. 2012, sections 2 and 4.1), decoded as the
trainer's loader decodes it. Sums are exact integers; there is one division, in float64, at the
end, so that the file is the same for any number of workers and any order.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep import handover, images, prepared
from prep.handover import Statistics
from prep.moments import Moments, moments_of, zero_moments
from prep.prepared import Place
from prep.program import UserError
from prep.progress import progress
from prep.units import run_units

UNIT_SIZE = 1024  # pictures: one or two seconds of one core
BATCH = 32  # pictures decoded before their sums are taken


@dataclasses.dataclass(frozen=True)
class Unit:
    """Consecutive samples of a prepared split."""

    places: list[Place]
    side: int


def measure(folder: Path, jobs: int | None) -> Statistics:
    """Statistics of the prepared split OUT/train.

    Raises UserError when it is no prepared split, is not the training split, is empty, or when
    a file has changed since it was prepared.
    """
    split = prepared.open_prepared(folder)
    if split.card.split != "train":
        raise UserError(
            f"{folder} is the {split.card.split} split; statistics are of the training split "
            "only: give OUT/train"
        )
    if len(split) == 0:
        raise UserError(f"{folder} holds no samples; see rejects.jsonl beside it")
    units = (
        Unit(
            split.places(start, min(start + UNIT_SIZE, len(split))),
            split.card.side,
        )
        for start in range(0, len(split), UNIT_SIZE)
    )
    total = zero_moments(split.card.side)
    with progress("stats", len(split)) as report:
        for moments in run_units(unit_moments, units, jobs):
            total += moments
            report(moments.count)
    return statistics_of(total, split.card.pixels_id)


def unit_moments(unit: Unit) -> Moments:
    """Decode and sum the samples of one unit."""
    batch = np.empty((BATCH, unit.side, unit.side, 3), np.uint8)
    total = zero_moments(unit.side)
    for start in range(0, len(unit.places), BATCH):
        places = unit.places[start : start + BATCH]
        for slot, place in enumerate(places):
            batch[slot] = read_sample(place, unit.side)
        total += moments_of(batch[: len(places)])
    return total


def read_sample(place: Place, side: int) -> npt.NDArray[np.uint8]:
    """The pixels of a prepared sample, uint8 [side,side,3].

    Raises UserError when the file is missing or is not the one that was prepared.
    """
    data = prepared.read_unchanged(place)
    try:
        pixels = images.decode_as_ffcv(data)
    except ValueError as error:
        raise UserError(
            f"{place.path} cannot be decoded ({error}); run `prep resize` again"
        ) from error
    if pixels.shape != (side, side, 3):
        raise UserError(f"{place.path} has shape {pixels.shape}, its card says {side}x{side}x3")
    return pixels


def statistics_of(moments: Moments, pixels_id: str) -> Statistics:
    """Divide the sums once. Exact integers up to the division (Python's, of any width)."""
    side = moments.pixel_sums.shape[0]
    pixels = moments.count * side * side
    sums = [int(value) for value in moments.pixel_sums.sum(axis=(0, 1))]
    covariance = np.empty((3, 3), np.float64)
    for row in range(3):
        for column in range(3):
            product = int(moments.product_sums[row, column])
            # E[xy] - E[x]E[y] over one denominator; int / int is correctly rounded
            covariance[row, column] = (pixels * product - sums[row] * sums[column]) / pixels**2
    eigenvalues, eigenvectors = principal_axes(covariance)
    return Statistics(
        count=moments.count,
        mean_image=(moments.pixel_sums / moments.count).astype(np.float32),
        channel_mean=np.array([total / pixels for total in sums]),
        covariance=covariance,
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        decoder=images.FFCV_DECODER,
        pixels_id=pixels_id,
    )


def principal_axes(
    covariance: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Eigenvalues [3], falling, and eigenvectors [3,3] in columns.

    The sign of an axis is free: its component of largest magnitude is made positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].copy(), vectors[:, ::-1].copy()
    largest = np.argmax(np.abs(vectors), axis=0)
    vectors *= np.sign(vectors[largest, np.arange(3)])
    return values, vectors


def write(statistics: Statistics, folder: Path) -> Path:
    """Write beside the prepared split; returns the path."""
    path = prepared.split_stats_path(folder)
    handover.write_statistics(statistics, path)
    return path
