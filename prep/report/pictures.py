"""Pictures as data: URIs: prepared ones as they are, originals as JPEGs, statistics as PNGs."""

from __future__ import annotations

import base64
import io

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw

from prep import decode, images, stats_sheet
from prep.handover import Card, Statistics
from prep.jpeg import MAX_PIXELS, Limits, RejectedImageError

LARGEST = 320  # pixels: the longer side of a picture on the page
QUALITY = 85  # of the originals' thumbnails
FRAME = (
    "white",
    "white",
    "black",
    "black",
)  # pixel by pixel inwards, of the part that was cut out: seen on any picture


def uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def prepared_picture(data: bytes, side: int) -> str:
    """A prepared JPEG, its own bytes where it is no larger than the page needs."""
    if side <= LARGEST:
        return uri(data, "jpeg")
    return _small(Image.fromarray(images.decode_as_ffcv(data)))


def original(data: bytes, card: Card | None) -> tuple[str, int, int]:
    """An original, small, and its width and height.

    `card` says what was cut out of it, which is framed; None: nothing was. What is damaged is shown
    as far as it goes. Raises RejectedImageError when nothing can be shown.
    """
    limits = Limits(MAX_PIXELS, upright=card is not None and card.exif == "apply", truncated=True)
    image = _decoded(data, limits)
    width, height = image.size
    image.thumbnail((LARGEST, LARGEST))
    side = min(image.size)
    if card is not None and card.fit == "crop" and width != height and side > 2 * len(FRAME):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        draw = ImageDraw.Draw(image)
        for inset, colour in enumerate(FRAME):
            right, bottom = left + side - 1 - inset, top + side - 1 - inset
            draw.rectangle((left + inset, top + inset, right, bottom), outline=colour)
    return _small(image), width, height


def _decoded(data: bytes, limits: Limits) -> Image.Image:
    """As `prep resize` decodes; failing that, what libjpeg makes of a damaged JPEG."""
    try:
        try:
            return decode.to_image(data, limits)[0]
        except RejectedImageError:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            if width * height > limits.max_pixels:
                raise
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", strict=False))
    except RejectedImageError:
        raise
    except Exception as error:  # decoders answer hostile bytes with nearly any exception
        raise RejectedImageError("nothing of it can be decoded") from error


def _small(image: Image.Image) -> str:
    image.thumbnail((LARGEST, LARGEST))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return uri(out.getvalue(), "jpeg")


def mean_image(statistics: Statistics) -> str:
    return _png(stats_sheet.displayed(statistics.mean_image))


def ramp(statistics: Statistics, axis: int) -> str:
    """The mean colour in the middle, three standard deviations along an axis to each side."""
    return _png(stats_sheet.ramp(statistics, axis, width=256))


def _png(pixels: stats_sheet.Pixels) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LARGEST, LARGEST))
    out = io.BytesIO()
    image.save(out, "PNG")
    return uri(out.getvalue(), "png")
