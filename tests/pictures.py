"""Pictures and their files, for the tests of decoding and resizing."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from conftest import smooth_picture
from PIL import Image

SIDE = 256
Pixels = npt.NDArray[np.uint8]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return smooth_picture(np.random.default_rng(seed), width, height)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def square(mode: str = "RGB") -> Image.Image:
    """A 256x256 picture needs no resizing: only the conversion to RGB is seen."""
    return picture(SIDE, SIDE).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def difference(a: npt.ArrayLike, b: npt.ArrayLike) -> int:
    """The largest, in grey levels."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())
