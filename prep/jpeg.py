"""JPEGs as libjpeg sees them: how large, of which colours, and whether their pixels are all there.

A JPEG has no checksum, but libjpeg warns when the codes of a scan do not fit together. Such files
are rejected (DAMAGE), those with oddities that cost no pixel are taken. Also here: what every
reader of a picture shares, its limits and its refusal.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import simplejpeg

from prep.bounds import memory_bound

MAX_PIXELS = 40_000_000  # ImageNet's largest picture, 7056x4488, has 31.7 million
MAX_SCANS = 500  # progressive encoders write about 10; thousands could take a day to decode
MAX_SEGMENTS = 2000  # of a header; a colour profile may have 255
LARGE = 10**11  # bytes times pixels; half a megabyte of an ImageNet picture's size
SEQUENTIAL = (0xC0, 0xC1, 0xC9)  # frames' markers
# What libjpeg warns of when pixels are lost or may be.
DAMAGE = re.compile(
    "premature end of data segment|bad Huffman code|bad arithmetic code|found marker"
    "|extraneous bytes before marker 0x(?!d9)|Inconsistent progression"
)
# What costs no pixel: nothing, or bytes between the last code of the last scan and the end of the
# image (0xd9). A missing tail gets here when it is accepted. Anything else may be an error.
HARMLESS = re.compile("^$|extraneous bytes before marker 0xd9|Premature end of JPEG file")


class RejectedImageError(Exception):
    """This picture cannot be used; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is taken of a file, and how."""

    max_pixels: int = MAX_PIXELS
    upright: bool = False  # honour EXIF orientation
    truncated: bool = False  # take what is left of a file whose tail is missing


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise RejectedImageError(f"it has {width}x{height} pixels")
    if width * height > max_pixels:
        raise RejectedImageError(
            f"{width}x{height} is more than {max_pixels:,} pixels (--max-pixels)"
        )


def one_line(error: object) -> str:
    text = str(error) or type(error).__name__
    return text.replace("\n", " ")


# --------------------------------------------------------------------------- what libjpeg says


@dataclasses.dataclass(frozen=True)
class Header:
    width: int
    height: int
    colours: str  # "YCbCr", "RGB", "Gray", "CMYK" or "YCCK"

    @property
    def space(self) -> str:
        """The least that simplejpeg has to decode to."""
        return "CMYK" if self.colours in ("CMYK", "YCCK") else "GRAY"


def is_jpeg(data: bytes) -> bool:
    """By its beginning alone; simplejpeg's own asks for the end as well, which may be missing."""
    return data.startswith(b"\xff\xd8\xff")


def read_header(jpeg: bytes, limits: Limits) -> Header | None:
    """Of a JPEG that simplejpeg can read; checks its size."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg, strict=False)
    except (ValueError, KeyError):
        try:  # the header may be no more than untidy
            height, width, colours, _ = simplejpeg.decode_jpeg_header(tidied(jpeg), strict=False)
        except (ValueError, KeyError):  # KeyError: a subsampling that simplejpeg has no name for
            return None
    check_size(width, height, limits.max_pixels)
    # A small file has no room for so many; counting takes a tenth of a millisecond.
    large = len(jpeg) * width * height > LARGE
    if large and not _is_one_scan(jpeg) and jpeg.count(b"\xff\xda") > MAX_SCANS:
        raise RejectedImageError(f"the JPEG has more than {MAX_SCANS} scans")
    return Header(width, height, colours)


def _is_one_scan(jpeg: bytes) -> bool:
    """Whether libjpeg reads no second scan: the first has every component, and all of it.

    False where a header is not plainly one segment after the other, for libjpeg may see others.
    """
    place, components = 2, b""
    for marker, start, end in segments(jpeg):
        if start != place or end < start + 4 or not 0xC0 <= marker <= 0xFE:
            return False
        if marker in SEQUENTIAL:
            components = jpeg[start + 9 : start + 10]
        if marker == 0xDA:
            return jpeg[start + 4 : start + 5] == components
        place = end
    return False


def segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a header: marker, and where its 0xff and what follows the segment lie.

    What stands between them is passed over, as libjpeg does. The last one is the first scan's
    header, or the end of the image.
    """
    place = 2
    while (place := jpeg.find(b"\xff", place)) >= 0 and place + 4 <= len(jpeg):
        marker = jpeg[place + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no segment follows
            place += 1
            continue
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4])
        yield marker, place, end
        if marker in (0xD9, 0xDA):
            return
        place = end


def tells_orientation(jpeg: bytes) -> bool:
    """Whether there is EXIF or XMP that may say how the picture is to be turned.

    Not in a header of more than MAX_SEGMENTS, which nobody is to read for that.
    """
    told = False
    for number, (marker, start, end) in enumerate(segments(jpeg)):
        if number == MAX_SEGMENTS:
            return False
        told |= marker == 0xE1 and (
            jpeg.startswith(b"Exif\0\0", start + 4) or b"tiff:Orientation" in jpeg[start:end]
        )
    return told


def warning_of(jpeg: bytes, space: str) -> str:
    """What libjpeg has against these bytes, "" for nothing.

    Decoded whole: of a lossless JPEG at a fraction of its size, simplejpeg 1.9.0 writes beyond its
    array.
    """
    try:
        simplejpeg.decode_jpeg(jpeg, space)
    except ValueError as error:
        return one_line(error)
    return ""


def check_scans(jpeg: bytes, space: str, limits: Limits) -> tuple[bytes, str]:
    """The same picture with a tidy header, and what libjpeg still has against it.

    libjpeg tells its first warning only. One about the header would hide what it has to say of
    the scans. Raises RejectedImageError when that is that pixels are lost.
    """
    tidy = tidied(jpeg)
    with memory_bound(len(jpeg)):
        warning = warning_of(tidy, space)
    if "Premature end of JPEG file" in warning and not limits.truncated:
        raise RejectedImageError("the JPEG is truncated (--on-truncated accept takes what is left)")
    if DAMAGE.search(warning):
        raise RejectedImageError(f"the JPEG is damaged: {warning}")
    return tidy, warning


# --------------------------------------------------------------------------- the same picture


def tidied(jpeg: bytes) -> bytes:
    """The same picture with a header that gives libjpeg nothing to warn of.

    Drops what stands between segments and what the pixels do not depend on: comments and
    application segments but JFIF's and Adobe's, which decide the colour space.
    """
    out = bytearray(jpeg[:2])
    progressive = False
    for marker, start, end in segments(jpeg):
        if marker == 0xDA and not progressive:  # a scan of all 64 coefficients, whatever it says
            return bytes(out) + jpeg[start : end - 3] + b"\x00\x3f\x00" + jpeg[end:]
        if marker in (0xD9, 0xDA):
            return bytes(out) + jpeg[start:]
        body = jpeg[start + 4 : end]
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            out += b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"  # no thumbnail
        elif marker == 0xEE and body.startswith(b"Adobe") and body[11:12] <= b"\x02":
            out += jpeg[start:end]  # with a colour transform that there is
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            out += jpeg[start:end]
            progressive |= marker not in (0xC0, 0xC1, 0xC4, 0xC9, 0xCC, 0xDB, 0xDD)
    return jpeg


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
