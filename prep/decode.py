"""A picture file's bytes to upright pixels: what is in it decides how, never its name.

Takes bytes and Limits; gives uint8 [H,W,4] (red, green, blue, and one byte that means nothing) or,
for the backend `pillow`, a Pillow image of mode RGB; and the kind of file it was: its format and
colour mode, such as "JPEG YCbCr" or "PNG RGBA".

Plain JPEGs (grey, YCbCr or RGB; baseline, progressive or arithmetic-coded) go through
libjpeg-turbo by simplejpeg. Everything else goes through Pillow, first frame only:

- CMYK and YCCK JPEGs: stored inverted, as Adobe's programs write them and every reader assumes;
  R = (255 - C)(255 - K) / 255, as Pillow and ImageMagick do without a profile.
- JPEGs of two components, which no reader takes: the first one, as grey.
- Transparent pixels are laid over white. Samples of 16 bits are scaled to 8, not clipped.
- ICC profiles are ignored. EXIF orientation is ignored, or honoured where Limits say so; the
  orientation of a TIFF is no EXIF but part of its format, and always honoured (by Pillow).

A JPEG has no checksum, but libjpeg warns when the codes of a scan do not fit together; such
files are rejected (DAMAGE), those with oddities that cost no pixel are taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from prep.bounds import memory_bound

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 40_000_000  # ImageNet's largest picture, 7056x4488, has 31.7 million
# What Pillow may read, MPO among the JPEGs; its other readers start programs (EPS) or are seldom
# tried.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
# What libjpeg warns of when pixels are lost or may be.
DAMAGE = re.compile(
    "premature end of data segment|bad Huffman code|bad arithmetic code|found marker"
    "|extraneous bytes before marker 0x(?!d9)|Inconsistent progression"
)
# What costs no pixel: nothing, or bytes between the last code of the last scan and the end of the
# image (0xd9). A missing tail gets here when it is accepted. Anything else may be an error.
HARMLESS = re.compile("^$|extraneous bytes before marker 0xd9|Premature end of JPEG file")
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


class RejectedImageError(Exception):
    """This picture cannot be used; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is taken of a file, and how."""

    max_pixels: int = MAX_PIXELS
    upright: bool = False  # honour EXIF orientation
    truncated: bool = False  # take what is left of a file whose tail is missing


def to_pixels(data: bytes, limits: Limits) -> tuple[Pixels, str]:
    """uint8 [H,W,4] and the kind; the fast way for nearly all of ImageNet.

    Raises RejectedImageError, or what a decoder raises.
    """
    plain = _decode_plain_jpeg(data, limits) if simplejpeg.is_jpeg(data) else None
    if plain is not None:
        return plain
    image, kind = to_image(data, limits)
    return _pixels_of(image), kind


# --------------------------------------------------------------------------- plain JPEGs


def _decode_plain_jpeg(data: bytes, limits: Limits) -> tuple[Pixels, str] | None:
    """None when Pillow has to look at it."""
    header = _header(data, limits)
    if header is None or header.space == "CMYK":
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGBX")
    except ValueError:
        tidy, warning = _check_scans(data, "RGBX", limits)
        if not HARMLESS.search(warning):
            return None
        # Not strict: it says nothing of errors either, and leaves what it could not decode.
        grey = np.full((header.height, header.width, 4), 128, np.uint8)
        pixels = simplejpeg.decode_jpeg(tidy, "RGBX", buffer=grey, strict=False)
    if limits.upright:
        pixels = _turned(pixels, _orientation_of(data))
    return pixels, f"JPEG {header.colours}"


@dataclasses.dataclass(frozen=True)
class _Header:
    width: int
    height: int
    colours: str  # "YCbCr", "RGB", "Gray", "CMYK" or "YCCK"

    @property
    def space(self) -> str:
        """The least that simplejpeg has to decode to."""
        return "CMYK" if self.colours in ("CMYK", "YCCK") else "GRAY"


def _header(jpeg: bytes, limits: Limits) -> _Header | None:
    """Of a JPEG that simplejpeg can read; checks its size."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg, strict=False)
    except (ValueError, KeyError):
        try:  # the header may be no more than untidy
            height, width, colours, _ = simplejpeg.decode_jpeg_header(tidied(jpeg), strict=False)
        except (ValueError, KeyError):  # KeyError: a subsampling that simplejpeg has no name for
            return None
    _check_size(width, height, limits.max_pixels)
    return _Header(width, height, colours)


def _warning(jpeg: bytes, space: str) -> str:
    """What libjpeg has against these bytes, "" for nothing.

    Decoded whole: of a lossless JPEG at a fraction of its size, simplejpeg 1.9.0 writes beyond its
    array.
    """
    try:
        simplejpeg.decode_jpeg(jpeg, space)
    except ValueError as error:
        return one_line(error)
    return ""


def _check_scans(jpeg: bytes, space: str, limits: Limits) -> tuple[bytes, str]:
    """The same picture with a tidy header, and what libjpeg still has against it.

    libjpeg tells its first warning only. One about the header would hide what it has to say of
    the scans. Raises RejectedImageError when that is that pixels are lost.
    """
    tidy = tidied(jpeg)
    warning = _warning(tidy, space)
    if "Premature end of JPEG file" in warning and not limits.truncated:
        raise RejectedImageError("the JPEG is truncated (--on-truncated)")
    if DAMAGE.search(warning):
        raise RejectedImageError(f"the JPEG is damaged: {warning}")
    return tidy, warning


def tidied(jpeg: bytes) -> bytes:
    """The same picture with a header that gives libjpeg nothing to warn of.

    Drops what stands between segments and what the pixels do not depend on: comments and
    application segments but JFIF's and Adobe's, which decide the colour space.
    """
    out = bytearray(jpeg[:2])
    place, progressive = 2, False
    while (place := jpeg.find(b"\xff", place)) >= 0 and place + 4 <= len(jpeg):
        marker = jpeg[place + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no segment follows
            place += 1
            continue
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4])
        if marker == 0xDA and not progressive:  # a scan of all 64 coefficients, whatever it says
            return bytes(out) + jpeg[place : end - 3] + b"\x00\x3f\x00" + jpeg[end:]
        if marker in (0xD9, 0xDA):
            return bytes(out) + jpeg[place:]
        body = jpeg[place + 4 : end]
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            out += b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # no thumbnail
        elif marker == 0xEE and body.startswith(b"Adobe") and body[11:12] <= b"\x02":
            out += jpeg[place:end]  # with a colour transform that there is
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            out += jpeg[place:end]
            progressive |= marker not in (0xC0, 0xC1, 0xC4, 0xC9, 0xCC, 0xDB, 0xDD)
        place = end
    return jpeg


# --------------------------------------------------------------------------- everything else


def to_image(data: bytes, limits: Limits) -> tuple[Image.Image, str]:
    """A Pillow image of mode RGB and the kind, by Pillow alone.

    Raises RejectedImageError, or what Pillow raises.
    """
    header = _header(data, limits) if simplejpeg.is_jpeg(data) else None
    if header is not None:  # Pillow says nothing of a damaged JPEG
        _check_scans(data, header.space, limits)
    with memory_bound(len(data)), _unheard_warnings(), _open(data) as image:
        kind = f"{image.format} {image.mode}"
        _check_size(image.width, image.height, limits.max_pixels)
        _load(image, data, limits)
        orientation = image.getexif().get(EXIF_ORIENTATION, 1) if limits.upright else 1
        return _turned_image(_to_rgb(image), orientation), kind


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
        two = as_three_components(data)
        if two is not None:
            image = Image.open(io.BytesIO(two), formats=("JPEG",))
            image.draft("L", image.size)  # the first component alone
            return image
        if simplejpeg.is_jpeg(data):
            raise RejectedImageError(f"cannot be decoded: {_warning(data, 'GRAY')}") from error
        raise RejectedImageError("not a picture in a known format") from error


def _load(image: Image.Image, data: bytes, limits: Limits) -> None:
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = limits.truncated
    try:
        image.load()
    except OSError as error:
        if "truncated" in str(error):
            raise RejectedImageError(f"the {image.format} is truncated (--on-truncated)") from error
        said = _warning(data, "GRAY") if simplejpeg.is_jpeg(data) else ""
        raise RejectedImageError(f"cannot be decoded: {said or one_line(error)}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def as_three_components(jpeg: bytes) -> bytes | None:
    """A JPEG of two components, with an empty third one declared; None for anything else.

    libjpeg then takes the first component for luminance. The third one has no scan.
    """
    frame = re.search(rb"\xff[\xc0-\xc3\xc9-\xcb]\x00\x0e.{5}\x02.{6}", jpeg, re.DOTALL)
    if not jpeg.startswith(b"\xff\xd8") or frame is None:
        return None
    header = jpeg[frame.start() : frame.end()]
    third = bytes([next(n for n in range(1, 4) if n not in (header[10], header[13])), 0x11, 0])
    wider = header[:2] + b"\x00\x11" + header[4:9] + b"\x03" + header[10:] + third
    return jpeg[: frame.start()] + wider + jpeg[frame.end() :]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a sample, kept by Pillow in I;16 or I
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode == "F":
        raise RejectedImageError("floating-point pixels have no known range")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Pixels:
    """[H,W] of 0..65535 to round(s / 257)."""
    samples = np.asarray(image)
    if samples.min() < 0 or samples.max() > 65535:
        raise RejectedImageError("integer pixels outside 0..65535 have no known range")
    samples = samples.astype(np.uint16)
    grey = samples // 257 + (samples % 257 > 128)  # without leaving 16 bits
    return grey.astype(np.uint8)


def _pixels_of(image: Image.Image) -> Pixels:
    """Mode RGB to uint8 [H,W,4]."""
    pixels = np.empty((image.height, image.width, 4), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        strip = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = np.asarray(strip.convert("RGBX"))
    return pixels


# --------------------------------------------------------------------------- both


def _orientation_of(jpeg: bytes) -> int:
    with (
        memory_bound(len(jpeg)),
        _unheard_warnings(),
        Image.open(io.BytesIO(jpeg), formats=FORMATS) as image,
    ):
        return int(image.getexif().get(EXIF_ORIENTATION, 1))


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


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise RejectedImageError(f"it has {width}x{height} pixels")
    if width * height > max_pixels:
        raise RejectedImageError(
            f"{width}x{height} is more than {max_pixels} pixels (--max-pixels)"
        )


def one_line(error: object) -> str:
    text = str(error) or type(error).__name__
    return text.replace("\n", " ")
