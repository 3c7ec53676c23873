"""A picture file's bytes to upright pixels: what is in it decides how, never its name.

Takes bytes and Limits; gives uint8 [H,W,4] (red, green, blue, and one byte that means nothing) or,
for the backend `pillow`, a Pillow image of mode RGB; and the kind of file it was: its format and
colour mode, such as "JPEG YCbCr" or "PNG RGBA", and the EXIF orientation of one that does not lie
upright, such as "JPEG YCbCr, EXIF orientation 6".

Plain JPEGs (grey, YCbCr or RGB; baseline, progressive or arithmetic-coded) go through
libjpeg-turbo by simplejpeg. Everything else goes through Pillow, first frame only:

- CMYK and YCCK JPEGs: stored inverted, as Adobe's programs write them and every reader assumes;
  R = (255 - C)(255 - K) / 255, as Pillow and ImageMagick do without a profile.
- JPEGs of two components, which no reader takes: the first one, as grey.
- Transparent pixels are laid over white. Samples of 16 bits are scaled to 8, not clipped.
- ICC profiles are ignored. EXIF orientation is ignored, or honoured where Limits say so; the
  orientation of a TIFF or an AVIF is no EXIF but part of its format, and always honoured.

Whether a JPEG's pixels are all there is judged by prep.jpeg.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from prep import jpeg
from prep.bounds import memory_bound
from prep.jpeg import Limits, RejectedImageError, check_size, one_line
from prep.scratch import scratch

Pixels = npt.NDArray[np.uint8]

# What Pillow may read, MPO among the JPEGs; its other readers start programs (EPS) or are seldom
# tried.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
STRIP = 64  # rows that are copied out of a Pillow image at once: a picture is held only twice
EXIF_ORIENTATION = 0x0112
# EXIF orientation: (swap the axes, then mirror left-right, then mirror top-bottom)
UPRIGHT = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

# The limit is ours and is checked before any pixel is decoded; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None


def to_pixels(data: bytes, limits: Limits) -> tuple[Pixels, str]:
    """uint8 [H,W,4], good until the next call, and the kind; fast for nearly all of ImageNet.

    Raises RejectedImageError, or what a decoder raises.
    """
    plain = _decode_plain_jpeg(data, limits) if jpeg.is_jpeg(data) else None
    if plain is not None:
        return plain
    image, kind = to_image(data, limits)
    return _pixels_of(image), kind


# --------------------------------------------------------------------------- plain JPEGs


def _decode_plain_jpeg(data: bytes, limits: Limits) -> tuple[Pixels, str] | None:
    """None when Pillow has to look at it."""
    header = jpeg.read_header(data, limits)
    if header is None or header.space == "CMYK":
        return None
    try:
        size = 4 * header.width * header.height
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGBX", buffer=scratch("decoded", size))
    except ValueError:
        tidy, warning = jpeg.check_scans(data, "RGBX", limits)
        if not jpeg.HARMLESS.search(warning):
            return None
        # Not strict: it says nothing of errors either, and leaves what it could not decode.
        grey = np.full((header.height, header.width, 4), 128, np.uint8)
        pixels = simplejpeg.decode_jpeg(tidy, "RGBX", buffer=grey, strict=False)
    orientation = _orientation_of(data, limits) if jpeg.tells_orientation(data) else 1
    if limits.upright:
        pixels = _turned(pixels, orientation)
    return pixels, _kind(f"JPEG {header.colours}", orientation)


# --------------------------------------------------------------------------- everything else


def to_image(data: bytes, limits: Limits) -> tuple[Image.Image, str]:
    """A Pillow image of mode RGB and the kind, by Pillow alone.

    Raises RejectedImageError, or what Pillow raises.
    """
    header = jpeg.read_header(data, limits) if jpeg.is_jpeg(data) else None
    if header is not None:  # Pillow says nothing of a damaged JPEG
        jpeg.check_scans(data, header.space, limits)
    with memory_bound(len(data)), _unheard_warnings(), _open(data) as image:
        kind = f"{image.format} {image.mode}"
        check_size(image.width, image.height, limits.max_pixels)
        _load(image, data, limits)
        pixels = _to_rgb(image)
        if image.format == "AVIF":  # Pillow puts the format's own turn into the EXIF bytes
            return _turned_image(pixels, _exif_orientation(image)), kind
        orientation = _told_orientation(image, limits)
        upright = _turned_image(pixels, orientation) if limits.upright else pixels
        return upright, _kind(kind, orientation)


@contextlib.contextmanager
def _unheard_warnings() -> Iterator[None]:
    """Pillow warns of metadata, which nothing here depends on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes) -> Image.Image:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # every thread would hold a frame; prep has workers
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        two = jpeg.as_three_components(data)
        if two is not None:
            image = Image.open(io.BytesIO(two), formats=("JPEG",))
            image.draft("L", image.size)  # the first component alone
            return image
        if jpeg.is_jpeg(data):
            raise RejectedImageError(
                f"cannot be decoded: {jpeg.warning_of(data, 'GRAY')}"
            ) from error
        raise RejectedImageError("not a picture in a known format") from error


def _load(image: Image.Image, data: bytes, limits: Limits) -> None:
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = limits.truncated
    try:
        image.load()
    except OSError as error:
        if "truncated" in str(error):
            raise RejectedImageError(
                f"the {image.format} is truncated (--on-truncated accept takes what is left)"
            ) from error
        said = jpeg.warning_of(data, "GRAY") if jpeg.is_jpeg(data) else ""
        raise RejectedImageError(f"cannot be decoded: {said or one_line(error)}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _to_rgb(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # more than 8 bits a sample
        if image.format == "TIFF" and image.mode == "I":
            raise RejectedImageError("signed or 32-bit samples have no known range")
        samples = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        grey = samples // 257 + (samples % 257 > 128)  # round(s / 257) without leaving 16 bits
        if transparent is not None:
            grey[samples == transparent] = 255  # white
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise RejectedImageError("floating-point pixels have no known range")
    if image.has_transparency_data:
        if isinstance(transparent, tuple) and max(transparent) > 255:  # of 16 bits, the pixels of 8
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.convert("RGB")


def _pixels_of(image: Image.Image) -> Pixels:
    """Mode RGB to uint8 [H,W,4]."""
    pixels = np.empty((image.height, image.width, 4), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        strip = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = np.asarray(strip.convert("RGBX"))
    return pixels


# --------------------------------------------------------------------------- both


def _kind(kind: str, orientation: int) -> str:
    return f"{kind}, EXIF orientation {orientation}" if orientation in UPRIGHT else kind


def _orientation_of(jpeg: bytes, limits: Limits) -> int:
    """Of a JPEG that libjpeg has decoded; Pillow may refuse it."""
    try:
        with (
            memory_bound(len(jpeg)),
            _unheard_warnings(),
            Image.open(io.BytesIO(jpeg), formats=FORMATS) as image,
        ):
            return _exif_orientation(image)
    except Exception:
        if limits.upright:
            raise
        return 1


def _told_orientation(image: Image.Image, limits: Limits) -> int:
    """Raises MemoryError where the picture is to be turned by it."""
    try:
        return _exif_orientation(image)
    except MemoryError:
        if limits.upright:
            raise
        return 1


def _exif_orientation(image: Image.Image) -> int:
    """1, upright, where there is none or it cannot be read: it is no part of the picture."""
    try:
        if image.format == "AVIF":
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        return int(exif.get(EXIF_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # Pillow answers bad EXIF with nearly any
        return 1


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    swap, mirror, flip = UPRIGHT.get(orientation, (False, False, False))
    turned = pixels.swapaxes(0, 1) if swap else pixels
    turned = turned[:, ::-1] if mirror else turned
    return np.ascontiguousarray(turned[::-1] if flip else turned)


def _turned_image(image: Image.Image, orientation: int) -> Image.Image:
    swap, mirror, flip = UPRIGHT.get(orientation, (False, False, False))
    if swap:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flip else image
