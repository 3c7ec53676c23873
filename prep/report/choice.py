"""Which pictures a report shows: the extremes, some of every odd kind, and some of all classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prep.report.contents import CALLED, USUAL, Split

SPREAD = 8  # pictures from as many classes
OF_A_KIND = 3
MOST_KINDS = 12  # with pictures; hostile files have dozens


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A picture to show, and why."""

    number: int  # row of the manifest
    why: str  # "": nothing to say


def pairs(split: Split) -> list[Chosen]:
    """Extremes of size and shape, then pictures from classes far apart."""
    taken = np.flatnonzero(split.ok)
    if not len(taken):
        return []
    area = split.widths[taken].astype(np.int64) * split.heights[taken]
    shape = split.widths[taken] / np.maximum(split.heights[taken], 1)
    extremes: dict[str, int] = {}
    if area.min() < area.max():
        extremes |= {
            "the smallest original": int(taken[area.argmin()]),
            "the largest original": int(taken[area.argmax()]),
        }
    if shape.min() < shape.max():
        extremes |= {
            "the widest for its height": int(taken[shape.argmax()]),
            "the tallest for its width": int(taken[shape.argmin()]),
        }
    chosen: dict[int, str] = {}
    for why, number in extremes.items():
        chosen.setdefault(number, why)
    for number in _far_apart(taken, SPREAD):
        chosen.setdefault(number, "")
    return [Chosen(number, why) for number, why in chosen.items()]


@dataclasses.dataclass(frozen=True)
class Kind:
    """Originals that are not as nearly all are."""

    name: str
    count: int
    shown: list[Chosen]


def odd_kinds(split: Split) -> tuple[list[Kind], Kind | None]:
    """The kinds but for the usual one, misnamed files, then the most frequent, first.

    And the usual one, if there is one, of which none is shown.

    Where a set is of another kind throughout, such as PNGs, that is its usual one.
    """
    counts = np.bincount(split.kind_of[split.ok], minlength=len(split.kinds))
    usual = split.kinds.index(USUAL) if USUAL in split.kinds else -1
    if usual < 0 and counts.max(initial=0) * 2 > split.card.samples:
        usual = int(counts.argmax())
    there_are = np.flatnonzero(counts).tolist()
    order = sorted(there_are, key=lambda code: (CALLED not in split.kinds[code], -counts[code]))
    kinds: list[Kind] = []
    for code in order:
        if code == usual:
            continue
        there = np.flatnonzero(split.ok & (split.kind_of == code))
        shown = _far_apart(there, OF_A_KIND) if len(kinds) < MOST_KINDS else []
        chosen = [Chosen(number, "") for number in shown]
        kinds.append(Kind(split.kinds[code], int(counts[code]), chosen))
    return kinds, Kind(split.kinds[usual], int(counts[usual]), []) if usual >= 0 else None


def _far_apart(rows: npt.NDArray[np.int64], count: int) -> list[int]:
    """At most `count` rows, evenly over all: they are in label order."""
    count = min(count, len(rows))
    places: Sequence[int] = [(2 * place + 1) * len(rows) // (2 * count) for place in range(count)]
    return [int(rows[place]) for place in places]
