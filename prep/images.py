"""One picture: the bytes of a file in, uint8 [S,S,3] RGB out. Pure: no files, no processes.

Shorter side to S, centre crop of SxS, as torchvision's Resize(S) + CenterCrop(S) on a PIL image
does it (antialiased bilinear filter; Krizhevsky et al. 2012, section 2, name no filter).

Plain JPEGs (grey, YCbCr or RGB) go through libjpeg-turbo by simplejpeg. Everything else goes
through Pillow: CMYK and YCCK, PNG, GIF, WebP, TIFF, palettes, 16 bits. Transparent pixels are
laid over white. EXIF orientation and ICC profiles are ignored, as ImageNet tools do.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]

FILTER = "bilinear, antialiased"
MAX_PIXELS = 40_000_000  # ImageNet's largest picture, 7056x4488, has 31.7 million
MAX_BYTES = 1 << 28  # of a file; 40 million RGB pixels of 16 bits, uncompressed, have 0.9 of this
# What Pillow may read; its other readers start programs (EPS) or are seldom tried.
FORMATS = frozenset(("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF"))
# What libjpeg warns of when pixels are lost; its other warnings are of harmless oddities.
DAMAGE = (
    "premature end of data segment",
    "bad Huffman code",
    "bad arithmetic code",
    "found marker",  # another one than the restart marker that is due
)
FFCV_DECODER = f"libjpeg-turbo, fast DCT (simplejpeg {simplejpeg.__version__})"

# The limit is ours and is checked before any pixel is decoded; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None


class RejectedImageError(Exception):
    """This picture cannot be used; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A picture at its final size, and what its original was."""

    pixels: Pixels  # [S,S,3] RGB
    width: int  # of the original, pixels
    height: int
    kind: str  # format and colour mode of the original, such as "JPEG YCbCr" or "PNG RGBA"


def prepare(data: bytes, side: int, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Decode, resize and crop one picture to uint8 [side,side,3] RGB.

    Raises RejectedImageError with the reason when the bytes are no whole picture, or hold one
    of more than `max_pixels` pixels.
    """
    if not data:
        raise RejectedImageError("the file is empty")
    if len(data) > MAX_BYTES:
        raise RejectedImageError(too_many_bytes(len(data)))
    try:
        original, kind = _decode(data, max_pixels)
        pixels = _resize_and_crop(original, side)
    except RejectedImageError:
        raise
    except MemoryError as error:
        raise RejectedImageError("not enough memory to decode it") from error
    except Exception as error:
        # Decoders answer hostile bytes with nearly any exception; the file is bad, not the run.
        raise RejectedImageError(f"cannot be decoded: {_one_line(error)}") from error
    return Prepared(pixels, original.width, original.height, kind)


def too_many_bytes(size: int) -> str:
    """The reason for rejecting a file by its size, before it is read."""
    return f"its {size} bytes are more than {MAX_BYTES}"


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """uint8 [S,S,3] RGB to a baseline JPEG, 4:2:0."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420"
    )
    return encoded


def decode_as_ffcv(data: bytes) -> Pixels:
    """Decode a prepared JPEG to uint8 [H,W,3] RGB with the very pixels that FFCV's loader gives.

    FFCV calls libjpeg-turbo with its fast DCT. Raises ValueError on damaged bytes, which FFCV
    itself would not notice.
    """
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True)
    return pixels


def jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, 3) from a colour JPEG's frame header; None when it is no colour JPEG."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width, 3) if colours in ("RGB", "YCbCr") else None


# --------------------------------------------------------------------------- decoding


def _decode(data: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """A picture in mode RGB, and its kind."""
    if simplejpeg.is_jpeg(data):
        plain = _decode_plain_jpeg(data, max_pixels)
        if plain is not None:
            return plain
    return _decode_with_pillow(data, max_pixels)


def _decode_plain_jpeg(data: bytes, max_pixels: int) -> tuple[Image.Image, str] | None:
    """The fast way for nearly all of ImageNet; None when the slow way has to look at it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in ("CMYK", "YCCK"):
            return None
        _check_size(width, height, max_pixels)
        pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if "Premature end" in str(error):
            raise RejectedImageError("the JPEG is truncated") from error
        if any(sign in str(error) for sign in DAMAGE):
            raise RejectedImageError(f"the JPEG is damaged: {_one_line(error)}") from error
        return None  # an oddity, or no JPEG at all: Pillow finds out
    return Image.fromarray(pixels), f"JPEG {colours}"


def _decode_with_pillow(data: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise RejectedImageError("not a picture in a known format") from error
    with image:
        if image.format not in FORMATS:
            raise RejectedImageError(f"its format, {image.format}, is not one of the known ones")
        kind = f"{image.format} {image.mode}"
        _check_size(image.width, image.height, max_pixels)
        try:
            image.load()
        except OSError as error:
            if "truncated" in str(error):
                raise RejectedImageError(f"the {image.format} is truncated") from error
            raise
        return _to_rgb(image), kind


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a sample, kept by Pillow in I;16 or I
        samples = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        # round(s / 257) without leaving 16 bits
        grey = samples // 257 + (samples % 257 > 128)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise RejectedImageError("floating-point pixels have no known range")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.convert("RGB")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise RejectedImageError(f"it has {width}x{height} pixels")
    if width * height > max_pixels:
        raise RejectedImageError(
            f"{width}x{height} is more than {max_pixels} pixels (--max-pixels)"
        )


def _one_line(error: Exception) -> str:
    text: Any = str(error) or type(error).__name__
    return str(text).replace("\n", " ")


# --------------------------------------------------------------------------- geometry


def _resize_and_crop(image: Image.Image, side: int) -> Pixels:
    """Mode RGB of any size to uint8 [side,side,3].

    The centre crop of the resized picture is computed alone: `box` is that crop in the
    coordinates of the original, so that the sampling points are those of the whole resize.
    """
    width, height = image.size
    if width <= height:
        new_width, new_height = side, int(side * height / width)
    else:
        new_width, new_height = int(side * width / height), side
    left, top = round((new_width - side) / 2), round((new_height - side) / 2)
    scale_x, scale_y = width / new_width, height / new_height
    box = (left * scale_x, top * scale_y, (left + side) * scale_x, (top + side) * scale_y)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    resized = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)
