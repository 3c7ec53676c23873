"""What a killed `prep stats` had measured: OUT/train.stats.npz.checkpoint.

The sums so far and the units that are in them, written whole and seldom enough to cost less than a
hundredth of the time. It names what it is of: the samples' bytes in their order, the decoder, the
size of a unit. A checkpoint of anything else, or one that cannot be read, is passed over without a
word and written over: it could only have saved time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep import npz
from prep.files import whole_file
from prep.moments import Moments, zero_moments
from prep.program import UserError
from prep.stats_source import Samples

VERSION = 2  # of this file, and of what the sums mean
COST = 0.01  # share of the time that writing checkpoints may take


@dataclasses.dataclass
class SoFar:
    """The sums over the units that are done."""

    total: Moments
    done: npt.NDArray[np.bool_]  # [units]

    def add(self, unit: int, moments: Moments) -> None:
        self.total += moments
        self.done[unit] = True


class Checkpoint:
    """The checkpoint of one measurement, whose result will be `output`."""

    def __init__(self, output: Path, of: str, cost: float | None = None) -> None:
        """`cost`: share of the time that saving may take; None: COST."""
        self._cost = COST if cost is None else cost
        self._path = output.with_name(output.name + ".checkpoint")
        self._of = of
        self._next = 0.0  # time.monotonic() from which on to save

    def load(self, side: int, units: int) -> SoFar:
        """What an earlier run had measured of the same; else nothing."""
        with contextlib.suppress(UserError, KeyError):
            saved = npz.read(self._path, {}, remedy="start over")
            if npz.is_whole(saved) and str(saved["of"]) == self._of:
                moments = Moments(int(saved["count"]), saved["pixel_sums"], saved["product_sums"])
                return SoFar(moments, saved["done"])
        return SoFar(zero_moments(side), np.zeros(units, np.bool_))

    def save_if_due(self, so_far: SoFar) -> None:
        """Save, unless all is done or saving would take more than COST of the time."""
        if self.due() and not so_far.done.all():
            self.save(so_far, time.monotonic())

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def save(self, so_far: SoFar, began: float) -> None:
        """Save; what led to it began at time.monotonic() `began`."""
        with whole_file(self._path) as partial:
            saved = {
                "of": self._of,
                "count": so_far.total.count,
                "pixel_sums": so_far.total.pixel_sums,
                "product_sums": so_far.total.product_sums,
                "done": so_far.done,
            }
            npz.save(partial, saved)
        ended = time.monotonic()
        self._next = ended + (ended - began) / self._cost

    def remove(self) -> None:
        for path in (self._path, self._path.with_name(self._path.name + ".partial")):
            path.unlink(missing_ok=True)


def name_of(samples: Samples, unit_size: int) -> str:
    """Names a measurement: equal names have equal sums in equal units."""
    about = {
        "version": VERSION,
        "pixels_id": samples.card.pixels_id,
        "samples": len(samples),
        "side": samples.card.side,
        "mode": samples.card.mode,
        "decoder": samples.decoder,
        "unit_size": unit_size,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(samples.crc32.tobytes())  # pixels_id says nothing of the order
    return digest.hexdigest()
