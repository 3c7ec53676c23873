"""The part of prep.build that runs in a worker: a run of pictures to JPEGs, rows and sums."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from prep import images, prepared
from prep.moments import Moments, Pixels, sum_pictures, zero_moments
from prep.pictures import Run, prepare_run


@dataclasses.dataclass(frozen=True)
class Unit:
    """A run of samples, and whether the statistics are to be of them."""

    run: Run
    measured: bool


@dataclasses.dataclass(frozen=True)
class Built:
    """What a unit becomes, in the order of samples: by label, then name."""

    number: int
    rows: pa.Table  # of prepared.SCHEMA, of the rejected pictures too
    jpegs: bytes  # one after the other
    moments: Moments  # of the pixels that FFCV will decode, or zero


def build_unit(unit: Unit) -> Built:
    made: dict[str, bytes] = {}

    def store(name: str, jpeg: bytes) -> int:
        made[name] = jpeg
        return 0

    rows = prepare_run(unit.run, store)
    rows.sort(key=lambda row: (row["label"], row["name"]))
    jpegs = [made[row["name"]] for row in rows if row["status"] == "ok"]

    def fill(number: int, slot: Pixels) -> None:
        images.decode_as_ffcv(jpegs[number], slot)

    side = unit.run.settings.side
    return Built(
        unit.run.number,
        pa.Table.from_pylist(rows, schema=prepared.SCHEMA),
        b"".join(jpegs),
        sum_pictures(len(jpegs), side, fill) if unit.measured else zero_moments(side),
    )
