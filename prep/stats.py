"""Stage two: mean image, channel means, RGB covariance and its principal axes.

Of every pixel of the training split (Krizhevsky et al. 2012, sections 2 and 4.1), decoded as the
trainer's loader decodes it. Sums are exact integers; there is one division, in float64, at the
end, so that the file is the same for any number of workers and any order, from the prepared files
or from their beton, interrupted or not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prep import handover, images
from prep.axes import principal_axes
from prep.files import whole_file
from prep.handover import Statistics
from prep.moments import Moments, sum_pictures
from prep.place import Place
from prep.progress import progress
from prep.stats_resume import Checkpoint, name_of
from prep.stats_source import Pixels, Read, Samples, open_training
from prep.units import run_units

UNIT_SIZE = 1024  # pictures: half a second or a second of one core


@dataclasses.dataclass(frozen=True)
class Unit:
    """Consecutive samples."""

    number: int
    places: list[Place]
    side: int
    read: Read


class Measured(NamedTuple):
    """The statistics of some samples, which lie in `samples.output` now."""

    samples: Samples
    statistics: Statistics
    resumed: int  # pictures that an earlier run had measured


def measure(source: Path, jobs: int | None) -> Measured:
    """Measure OUT/train into OUT/train.stats.npz, or a FILE.beton into FILE.stats.npz.

    Killed, it carries on. Raises UserError when the source is no training split, holds nothing or
    has changed since it was made, when the output cannot be written or another run writes it.
    """
    samples = open_training(source)
    side, count = samples.card.side, len(samples)
    starts = range(0, count, UNIT_SIZE)
    with whole_file(samples.output) as partial:  # from the start: it keeps a second run out
        checkpoint = Checkpoint(samples.output, name_of(samples, UNIT_SIZE))
        so_far = checkpoint.load(side, len(starts))
        resumed = so_far.total.count
        units = (
            Unit(number, samples.places(start, min(start + UNIT_SIZE, count)), side, samples.read)
            for number, start in enumerate(starts)
            if not so_far.done[number]
        )
        with progress("stats", count - resumed) as report:
            for number, moments in run_units(unit_moments, units, jobs):
                so_far.add(number, moments)
                report(moments.count)
                checkpoint.save_if_due(so_far)
        statistics = statistics_of(so_far.total, samples.card.pixels_id, samples.decoder)
        handover.write_statistics(statistics, partial)
        checkpoint.remove()  # not later: it may be another run's then
    return Measured(samples, statistics, resumed)


def unit_moments(unit: Unit) -> tuple[int, Moments]:
    """Decode and sum the samples of one unit; returns its number too."""

    def fill(number: int, slot: Pixels) -> None:
        unit.read(unit.places[number], slot)

    return unit.number, sum_pictures(len(unit.places), unit.side, fill)


def statistics_of(
    moments: Moments, pixels_id: str, decoder: str = images.FFCV_DECODER
) -> Statistics:
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
        decoder=decoder,
        pixels_id=pixels_id,
    )
