"""One picture: the bytes of a file in, uint8 [S,S,3] RGB out. Pure: no files, no processes.

prep.decode makes pixels of the bytes, prep.scale makes SxS of the pixels, simplejpeg encodes them
(baseline, 4:2:0). Three backends say how:

- turbo: libjpeg-turbo, our own resize within 2 grey levels of Pillow's, libjpeg-turbo.
- pillow: decoded by Pillow, resized as torchvision's Resize and CenterCrop do it, bit for bit.
- opencv-2012: OpenCV's resize as the authors of Krizhevsky et al. 2012 called it.

The paper (section 2) says shorter side to 256 and central 256x256 patch, and names no filter.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import numpy.typing as npt
import simplejpeg

from prep import decode, scale
from prep.jpeg import MAX_PIXELS, Limits, RejectedImageError, one_line

__all__ = [
    "BACKENDS",
    "EXIF",
    "EXTENSIONS",
    "FILTERS",
    "FITS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ON_TRUNCATED",
    "Prepared",
    "RejectedImageError",
    "Settings",
    "decode_as_ffcv",
    "encode_jpeg",
    "is_picture",
    "jpeg_shape",
    "prepare",
    "too_many_bytes",
]

Pixels = npt.NDArray[np.uint8]

BACKENDS = ("turbo", "pillow", "opencv-2012")
FILTERS = {
    "turbo": "bilinear, antialiased",
    "pillow": "bilinear, antialiased",
    "opencv-2012": "area to shrink, cubic to enlarge",
}
FITS = ("crop", "squash")
EXIF = ("ignore", "apply")
ON_TRUNCATED = ("reject", "accept")
MAX_BYTES = 1 << 28  # of a file; 40 million RGB pixels of 16 bits, uncompressed, have 0.9 of this
# Formats that Pillow reads with its default build; files with other endings are not pictures.
EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif".split()  # noqa: SIM905
)
FFCV_DECODER = f"libjpeg-turbo, fast DCT (simplejpeg {simplejpeg.__version__})"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides a prepared picture's bytes. Raises ValueError for a word it does not know."""

    side: int = 256  # pixels
    backend: str = "turbo"
    fit: str = "crop"  # shorter side to `side` and the centre cut out; "squash": both sides
    exif: str = "ignore"  # as ImageNet tools do; "apply": turn pictures upright
    on_truncated: str = "reject"  # a file whose tail is missing; "accept": what is left of it
    max_pixels: int = MAX_PIXELS
    quality: int = 95  # of the JPEGs; the authors' converter used 95

    def __post_init__(self) -> None:
        for name, known in (
            ("backend", BACKENDS),
            ("fit", FITS),
            ("exif", EXIF),
            ("on_truncated", ON_TRUNCATED),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is none of {', '.join(known)}; choose one"
                )

    @property
    def filter(self) -> str:
        return FILTERS[self.backend]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A picture at its final size, and what its original was."""

    pixels: Pixels  # [S,S,3] RGB
    width: int  # of the original, pixels; upright where EXIF is applied
    height: int
    kind: str  # of the original, such as "JPEG YCbCr" or "PNG RGBA" (prep.decode)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name."""
    hidden = name.startswith(".")  # such as macOS's ._n01440764_18.JPEG
    return not hidden and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122 (often)


def prepare(data: bytes, settings: Settings) -> Prepared:
    """Decode and resize one picture to uint8 [S,S,3] RGB.

    Raises RejectedImageError with the reason when the bytes are no whole picture, or hold one of
    more than `settings.max_pixels` pixels.
    """
    if not data:
        raise RejectedImageError("the file is empty")
    if len(data) > MAX_BYTES:
        raise RejectedImageError(too_many_bytes(len(data)))
    limits = Limits(
        max_pixels=settings.max_pixels,
        upright=settings.exif == "apply",
        truncated=settings.on_truncated == "accept",
    )
    try:
        return _prepare(data, settings, limits)
    except RejectedImageError:
        raise
    except MemoryError as error:
        raise RejectedImageError("it takes too much memory to decode") from error
    except Exception as error:
        # Decoders answer hostile bytes with nearly any exception; the file is bad, not the run.
        raise RejectedImageError(f"cannot be decoded: {one_line(error)}") from error


def _prepare(data: bytes, settings: Settings, limits: Limits) -> Prepared:
    side, fit = settings.side, settings.fit
    if settings.backend == "pillow":
        image, kind = decode.to_image(data, limits)
        return Prepared(scale.pillow(image, side, fit), image.width, image.height, kind)
    original_HW4, kind = decode.to_pixels(data, limits)
    resize = scale.turbo if settings.backend == "turbo" else scale.opencv
    height, width = original_HW4.shape[:2]
    return Prepared(resize(original_HW4, side, fit), width, height, kind)


def too_many_bytes(size: int) -> str:
    """The reason for rejecting a file by its size, before it is read."""
    return f"its {size} bytes are more than {MAX_BYTES}"


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """uint8 [S,S,3] RGB to a baseline JPEG, 4:2:0."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420"
    )
    return encoded


def decode_as_ffcv(data: bytes | memoryview, out: Pixels | None = None) -> Pixels:
    """Decode a prepared JPEG to uint8 [H,W,3] RGB with the very pixels that FFCV's loader gives.

    FFCV calls libjpeg-turbo with its fast DCT. The pixels lie at the start of `out`, where it is
    given. Raises ValueError on damaged bytes, which FFCV itself would not notice, and when `out` is
    too small.
    """
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, buffer=out)
    return pixels


def jpeg_shape(data: bytes | memoryview) -> tuple[int, int, int] | None:
    """(height, width, 3) from a colour JPEG's frame header; None when it is no colour JPEG."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width, 3) if colours in ("RGB", "YCbCr") else None
