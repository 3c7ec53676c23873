"""What tells the classes of a sample apart: a shape, a colour and a texture.

Colours are hues 120 degrees apart, drawn at any luma, so a grey copy does not tell them and
exchanging channels turns one into another. Shapes span most of the picture and share colours and
textures, so shuffled patches do not tell them. No class is another's mirror image. Shapes are
outlines, textures functions of coordinates; no randomness and no files here.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Points = list[tuple[float, float]]

COLOURS = {
    "red": 0,
    "green": 120,
    "blue": 240,
    "yellow": 60,
    "cyan": 180,
    "magenta": 300,
}  # degrees


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What every picture of one class shows: a key of COLOURS, of SHAPES and of TEXTURES."""

    shape: str
    colour: str
    texture: str

    @property
    def name(self) -> str:
        return f"{self.texture} {self.colour} {self.shape}"


def recipes(count: int) -> list[Recipe]:
    """The first `count` classes, at most len(SHAPES) * len(COLOURS) * len(TEXTURES).

    Every combination of the first 2 shapes, 3 colours and 2 textures comes first, then those
    with 2, 3 and 2 more, and so on; inside a round the shape changes fastest, then the colour.
    So the first ten already come in pairs that differ in the shape only, in the colour only and
    in the texture only.
    """
    triples = itertools.product(enumerate(TEXTURES), enumerate(COLOURS), enumerate(SHAPES))
    ordered = sorted(
        triples, key=lambda each: max(each[0][0] // 2, each[1][0] // 3, each[2][0] // 2)
    )
    return [Recipe(shape, colour, texture) for (_, texture), (_, colour), (_, shape) in ordered][
        :count
    ]


# --------------------------------------------------------------------------- shapes


def _star(points: int, inner: float, turn: float = 0.0) -> Points:
    """A star of `points` tips at radius 1; a regular polygon where `inner` is 1."""
    angles = [math.pi * (i / points) + turn - math.pi / 2 for i in range(2 * points)]
    radii = [1.0, inner] * points
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _arc(radius: float, start: float, end: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Points on a circle about (x, y), angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 48))
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def _heart() -> Points:
    turns = np.linspace(0, 2 * np.pi, 72)
    x = 16 * np.sin(turns) ** 3
    y = -(13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns))
    return [(float(a) / 17, float(b) / 17) for a, b in zip(x, y, strict=True)]


def _box(side: float) -> Points:
    return [(-side, -side), (side, -side), (side, side), (-side, side)]


_W = 0.31  # half the width of a bar
_CROSS: Points = [(-_W, -1), (_W, -1), (_W, -_W), (1, -_W), (1, _W), (_W, _W)]
_CROSS += [(-x, -y) for x, y in _CROSS]
_TEE: Points = [(-0.95, -0.9), (0.95, -0.9), (0.95, -0.25), (_W, -0.25), (_W, 0.95), (-_W, 0.95)]
_TEE += [(-_W, -0.25), (-0.95, -0.25)]
_ARROW: Points = [(0, -1), (0.9, 0), (_W, 0), (_W, 0.95), (-_W, 0.95), (-_W, 0), (-0.9, 0)]
_ARCH: Points = [*_arc(0.9, 180, 360, y=-0.1), (0.9, 0.9), (0.35, 0.9)]
_ARCH += [*_arc(0.35, 360, 180, y=-0.1), (-0.35, 0.9), (-0.9, 0.9)]
_CRESCENT: Points = [*_arc(1, 50, 310), *_arc(0.8, 290, 70, x=0.37)]
_GLASS: Points = [(-0.75, -0.95), (0.75, -0.95), (0.12, 0), (0.75, 0.95), (-0.75, 0.95), (-0.12, 0)]

# An outline and a hole, which may be empty; about as large as the circle of radius 1, y downwards.
SHAPES: dict[str, tuple[Points, Points]] = {
    "frame": (_box(0.8), _box(0.42)),
    "cross": (_CROSS, []),
    "ring": (_arc(0.95, 0, 360), _arc(0.42, 0, 360)),
    "triangle": (_star(3, 0.5), []),
    "disc": (_arc(0.85, 0, 360), []),
    "star": (_star(5, 0.42), []),
    "arch": (_ARCH, []),
    "heart": (_heart(), []),
    "hourglass": (_GLASS, []),
    "crescent": (_CRESCENT, []),
    "arrow": (_ARROW, []),
    "diamond": (_star(4, 1 / math.sqrt(2)), []),
    "tee": (_TEE, []),
    "bow": ([(y, x) for x, y in _GLASS], []),
}


# --------------------------------------------------------------------------- textures
# Each takes u (to the right), v (down) in periods, [H,W], and the period in pixels; gives 0..1,
# anti-aliased. Numbers are float32 so that the arrays stay so.


def _step(value: Floats, period: float) -> Floats:
    """0 below zero, 1 above, with an edge one pixel wide; `value` in periods."""
    stepped: Floats = np.clip(value * np.float32(period) + np.float32(0.5), 0, 1)
    return stepped


def _away(u: Floats) -> Floats:
    """The distance to the nearest whole number, 0..0.5."""
    distance: Floats = np.abs(u - np.rint(u))
    return distance


def _bars(u: Floats, period: float, width: float = 0.5) -> Floats:
    return _step(np.float32(width / 2) - _away(u), period)


def _dots(u: Floats, v: Floats, period: float) -> Floats:
    return _step(np.float32(0.33) - np.sqrt(_away(u) ** 2 + _away(v) ** 2), period)


def _checks(u: Floats, v: Floats, period: float) -> Floats:
    a, b = _bars(u / 2, period * 2), _bars(v / 2, period * 2)
    return a + b - 2 * a * b


def _bricks(u: Floats, v: Floats, period: float) -> Floats:
    shifted = u / 2 + np.floor(v) % 2 / 2
    joints = _step(_away(shifted) - np.float32(0.05), period * 2)
    return np.minimum(_step(_away(v) - np.float32(0.1), period), joints)


def _rings(u: Floats, v: Floats, period: float) -> Floats:
    radius = np.sqrt(_away(u * np.float32(0.65)) ** 2 + _away(v * np.float32(0.65)) ** 2)
    return _step(np.float32(0.13) - np.abs(radius - np.float32(0.3)), period / 0.65)


def _waves(u: Floats, v: Floats, period: float) -> Floats:
    return _bars(v + np.float32(0.6) * np.sin(2 * u), period)


def _harlequin(u: Floats, v: Floats, period: float) -> Floats:
    turned = np.float32(math.sqrt(0.5))
    return _checks((u + v) * turned, (u - v) * turned, period)


TEXTURES: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "striped": lambda u, _v, period: _bars(u, period),
    "dotted": _dots,
    "checked": _checks,
    "banded": lambda _u, v, period: _bars(v, period),
    "bricked": _bricks,
    "ringed": _rings,
    "latticed": lambda u, v, p: np.maximum(_bars(u, p, 0.25), _bars(v, p, 0.25)),
    "wavy": _waves,
    "harlequin": _harlequin,
    "zigzag": lambda u, v, period: _bars(v + 2 * _away(u / 2), period * 0.7),
    "dashed": lambda u, v, p: np.minimum(_bars(u, p, 0.3), _bars(v / 2, p * 2, 0.6)),
    "plain": lambda u, _v, _period: np.ones_like(u),
}
