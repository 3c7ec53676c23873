"""Pictures inside a page: data URIs of JPEGs and PNGs, with what the mean image and axes look like.

Pixels are uint8 [H,W,3] RGB.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from prep.handover import Statistics
from train.report.data import Pixels

SIDE = 128  # pixels of a sample's picture
QUALITY = 85  # of its JPEG
REACH = 3  # standard deviations to each side on a ramp


def thumbnail(pixels: Pixels) -> str:
    """A sample, as a JPEG."""
    picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _uri(picture, "JPEG", quality=QUALITY)


def as_png(pixels: Pixels) -> str:
    return _uri(Image.fromarray(pixels), "PNG")


def mean_picture(mean_SSC: npt.NDArray[np.float32]) -> str:
    """The mean image itself, rounded."""
    return as_png(displayed(mean_SSC))


def ramp(statistics: Statistics, axis: int, width: int = 256) -> str:
    """The mean colour, and up to REACH standard deviations along a principal axis; clipped."""
    steps = np.linspace(-REACH, REACH, width) * statistics.standard_deviations[axis]
    colours_1WC = statistics.channel_mean + steps[None, :, None] * statistics.eigenvectors[:, axis]
    return as_png(displayed(colours_1WC))


def displayed(values: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return pixels


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
