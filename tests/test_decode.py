"""Every kind of file to the right RGB, and nothing bad gets through."""

from __future__ import annotations

import base64
import io
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg
from conftest import jpeg_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SIDE, Pixels, difference, encoded, noise, picture, square
from PIL import Image, ImageOps, UnidentifiedImageError

from prep import bounds, decode, jpeg
from prep.images import BACKENDS, EXIF, MAX_BYTES, RejectedImageError, Settings, prepare
from prep.jpeg import Limits


def reason(data: bytes, **changed: object) -> str:
    with pytest.raises(RejectedImageError) as caught:
        prepare(data, Settings(**changed))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------- colour modes


def expected_of(rgb: Image.Image) -> Pixels:
    """A 256x256 picture needs no resizing: only the conversion to RGB is seen."""
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


@pytest.mark.parametrize(
    ("kind", "mode", "options", "name"),
    [
        ("JPEG", "RGB", {}, "JPEG YCbCr"),
        ("JPEG", "RGB", {"progressive": True}, "JPEG YCbCr"),
        ("JPEG", "RGB", {"subsampling": 0}, "JPEG YCbCr"),
        ("JPEG", "RGB", {"keep_rgb": True}, "JPEG RGB"),
        ("JPEG", "L", {}, "JPEG Gray"),
        ("JPEG", "CMYK", {}, "JPEG CMYK"),
        ("PNG", "RGB", {}, "PNG RGB"),
        ("PNG", "L", {}, "PNG L"),
        ("PNG", "1", {}, "PNG 1"),
        ("PNG", "P", {}, "PNG P"),
        ("GIF", "P", {}, "GIF P"),
        ("BMP", "RGB", {}, "BMP RGB"),
        ("TIFF", "RGB", {}, "TIFF RGB"),
        ("TIFF", "CMYK", {}, "TIFF CMYK"),
        ("TIFF", "1", {}, "TIFF 1"),
        ("WEBP", "RGB", {"lossless": True}, "WEBP RGB"),
        ("PPM", "RGB", {}, "PPM RGB"),
        ("PPM", "L", {}, "PPM L"),
    ],
)
def test_each_format_and_mode_is_what_pillow_makes_of_it(
    kind: str, mode: str, options: dict[str, object], name: str
) -> None:
    data = encoded(square(mode), kind, **options)
    prepared = prepare(data, Settings())
    with Image.open(io.BytesIO(data)) as opened:
        assert difference(prepared.pixels, expected_of(opened.convert("RGB"))) <= 1
    assert prepared.kind == name


def ycck_jpeg() -> bytes:
    """A CMYK JPEG whose Adobe marker says that it holds YCCK."""
    data = encoded(square("CMYK"), "JPEG")
    marker = data.index(b"Adobe")
    transform = marker + 11  # version 2, flags 4, then the colour transform: 0 CMYK, 2 YCCK
    assert data[transform] == 0
    return data[:transform] + b"\x02" + data[transform + 1 :]


def test_ycck_is_what_pillow_makes_of_it() -> None:
    data = ycck_jpeg()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "CMYK"
        expected = expected_of(opened.convert("RGB"))
    assert difference(prepare(data, Settings()).pixels, expected) <= 1
    assert difference(prepare(encoded(square("CMYK"), "JPEG"), Settings()).pixels, expected) > 50


def over_white(colour: tuple[int, int, int], alpha: int) -> list[float]:
    return [(value * alpha + 255 * (255 - alpha)) / 255 for value in colour]


@pytest.mark.parametrize("alpha", [0, 1, 100, 128, 254, 255])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_are_laid_over_white(kind: str, alpha: int) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(Image.new("RGBA", (300, 300), (200, 40, 0, alpha)), kind, **options)
    pixels = prepare(data, Settings()).pixels
    assert np.abs(pixels - np.array(over_white((200, 40, 0), alpha))).max() <= 1


def test_grey_with_alpha_is_laid_over_white() -> None:
    pixels = prepare(encoded(Image.new("LA", (300, 300), (10, 51)), "PNG"), Settings()).pixels
    assert np.abs(pixels - np.array(over_white((10, 10, 10), 51))).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])], ids=["index", "table"])
def test_a_transparent_palette_colour_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, SIDE, 128))
    pixels = prepare(encoded(image, "PNG", transparency=transparency), Settings()).pixels
    assert (pixels[:128] == (255, 255, 255)).all()
    assert (pixels[128:] == (255, 0, 0)).all()


def test_a_half_transparent_palette_colour_is_blended() -> None:
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([255, 0, 0])
    pixels = prepare(encoded(image, "PNG", transparency=bytes([51])), Settings()).pixels
    assert np.abs(pixels - np.array(over_white((255, 0, 0), 51))).max() <= 1


def test_a_transparent_rgb_colour_is_white() -> None:
    image = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, SIDE, 128))
    pixels = prepare(encoded(image, "PNG", transparency=(1, 2, 3)), Settings()).pixels
    assert (pixels[:128] == 9).all()
    assert (pixels[128:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    samples = np.linspace(0, 65535, SIDE * SIDE).round().astype(np.uint16).reshape(SIDE, SIDE)
    pixels = prepare(encoded(Image.fromarray(samples), kind), Settings()).pixels
    assert np.array_equal(pixels, np.round(samples[..., None] / 257).repeat(3, axis=2))


def test_a_transparent_colour_of_16_bits_is_white() -> None:
    pixel = struct.pack(">3H", 65535, 32896, 257)
    grey = b"".join(b"\0" + struct.pack(">H", value) * SIDE for value in range(0, 65536, 256))
    colour = (b"\0" + pixel * SIDE) * SIDE
    whole = prepare(png(SIDE, SIDE, depth=16, colour=0, rows=grey), Settings()).pixels
    holed = png(SIDE, SIDE, depth=16, colour=0, rows=grey, transparent=struct.pack(">H", 256))
    got = prepare(holed, Settings()).pixels
    assert (got[1] == 255).all()
    assert np.array_equal(np.delete(got, 1, axis=0), np.delete(whole, 1, axis=0))
    data = png(SIDE, SIDE, depth=16, colour=2, rows=colour, transparent=pixel)
    assert (prepare(data, Settings()).pixels == 255).all()


def test_16_bit_colour_is_scaled() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32896, 257) * SIDE for _ in range(SIDE))
    pixels = prepare(png(SIDE, SIDE, depth=16, colour=2, rows=rows), Settings()).pixels
    assert (pixels == (255, 128, 1)).all()


def test_a_png_called_jpeg_is_a_png() -> None:
    assert prepare(encoded(square(), "PNG"), Settings()).kind == "PNG RGB"


def rotated(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(400, 300), kind, exif=exif)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_ignored(kind: str, orientation: int) -> None:
    turned, plain = rotated(kind, orientation), encoded(picture(400, 300), kind)
    assert turned != plain
    assert np.array_equal(prepare(turned, Settings()).pixels, prepare(plain, Settings()).pixels)
    assert (prepare(turned, Settings()).width, prepare(turned, Settings()).height) == (400, 300)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied_when_asked_for(
    orientation: int, kind: str, backend: str
) -> None:
    """0 and 9 are no orientations."""
    data = rotated(kind, orientation)
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened)
    expected = prepare(encoded(upright, "PPM"), Settings(backend=backend))
    got = prepare(data, Settings(backend=backend, exif="apply"))
    assert np.array_equal(got.pixels, expected.pixels)
    assert (got.width, got.height) == upright.size


@pytest.mark.parametrize("exif", EXIF)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_kind_tells_of_exif_orientation(kind: str, backend: str, exif: str) -> None:
    settings = Settings(backend=backend, exif=exif)
    upright = prepare(rotated(kind, 1), settings).kind
    assert "orientation" not in upright
    assert prepare(rotated(kind, 9), settings).kind == upright
    assert prepare(rotated(kind, 6), settings).kind == f"{upright}, EXIF orientation 6"


def test_exif_that_pillow_cannot_read_costs_no_picture() -> None:
    """libjpeg takes a short JFIF segment for none, Pillow takes the file for no JPEG."""
    short = b"\xff\xe0\x00\x06JFIF"
    data = rotated("JPEG", 6)
    data = data[:2] + short + data[2:]
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))
    assert prepare(data, Settings()).kind == "JPEG YCbCr"
    with pytest.raises(RejectedImageError):  # it is not known how it lies
        prepare(data, Settings(exif="apply"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_takes_too_much_memory_costs_no_picture(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bomb(_: Image.Image) -> int:
        raise MemoryError

    monkeypatch.setattr(decode, "_exif_orientation", bomb)
    data = rotated(kind, 6)
    assert "EXIF" not in prepare(data, Settings()).kind
    with pytest.raises(RejectedImageError, match="memory"):
        prepare(data, Settings(exif="apply"))


def test_a_header_of_very_many_segments_is_not_read_for_exif() -> None:
    data = rotated("JPEG", 6)
    for segments, told in ((1900, True), (2000, False)):
        many = data[:2] + b"\xff\xe2\x00\x02" * segments + data[2:]
        assert jpeg.tells_orientation(many) == told
        assert prepare(many, Settings()).kind.endswith("6") == told


def test_orientation_told_in_xmp_alone_counts() -> None:
    """Photo editors write it there; Pillow, and so `--exif apply`, looks for it."""
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a tiff:Orientation="8"/></x:xmpmeta>'
    plain = encoded(picture(400, 300), "JPEG")
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2) + xmp
    got = prepare(plain[:2] + segment + plain[2:], Settings(exif="apply"))
    assert (got.width, got.height, got.kind) == (300, 400, "JPEG YCbCr, EXIF orientation 8")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "exif"),
    [("JPEG", b"Exif\0\0no TIFF header"), ("PNG", b"Exif\0\0XX*"), ("WEBP", b"Exif\0\0MM\0*")],
)
def test_exif_that_cannot_be_read_turns_nothing(kind: str, exif: bytes, backend: str) -> None:
    plain = encoded(picture(400, 300), kind)
    got = prepare(
        encoded(picture(400, 300), kind, exif=exif), Settings(backend=backend, exif="apply")
    )
    assert np.array_equal(got.pixels, prepare(plain, Settings(backend=backend)).pixels)


@pytest.mark.parametrize("exif", EXIF)
def test_the_orientation_of_a_tiff_is_part_of_its_format(exif: str) -> None:
    data = encoded(picture(400, 300), "TIFF", tiffinfo={0x0112: 6})
    expected = picture(400, 300).transpose(Image.Transpose.ROTATE_270)
    got = prepare(data, Settings(exif=exif))
    assert np.array_equal(got.pixels, prepare(encoded(expected, "PPM"), Settings()).pixels)
    assert (got.width, got.height) == (300, 400)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    first, *others = (Image.new("RGB", (300, 300), colour) for colour in colours)
    data = encoded(first, kind, save_all=True, append_images=others)
    assert difference(prepare(data, Settings()).pixels, np.full((SIDE, SIDE, 3), (255, 0, 0))) <= 2


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_chroma_subsampling_is_what_pillow_makes_of_it(subsampling: str) -> None:
    data = simplejpeg.encode_jpeg(np.array(square()), colorsubsampling=subsampling)
    with Image.open(io.BytesIO(data)) as opened:
        assert difference(prepare(data, Settings()).pixels, opened) <= 1


@pytest.mark.parametrize("progressive", [False, True])
def test_restart_markers_change_nothing(progressive: bool) -> None:
    image = picture(300, 300)
    plain = encoded(image, "JPEG", progressive=progressive)
    marked = encoded(image, "JPEG", progressive=progressive, restart_marker_blocks=7)
    assert b"\xff\xd0" in marked
    assert np.array_equal(prepare(marked, Settings()).pixels, prepare(plain, Settings()).pixels)


def test_of_an_mpo_the_first_picture_is_taken() -> None:
    first, second = picture(300, 300), Image.new("RGB", (300, 300))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    expected = prepare(encoded(first, "JPEG"), Settings()).pixels
    assert np.array_equal(prepare(data, Settings()).pixels, expected)
    assert prepare(data, Settings(backend="pillow")).kind == "MPO RGB"


def of_two_components(first: Image.Image, second: Image.Image) -> bytes:
    """A JPEG whose two components have a scan each: those of two grey JPEGs."""
    files = [encoded(image, "JPEG", quality=90) for image in (first, second)]
    scans = []
    for number, data in enumerate(files):
        start = data.index(b"\xff\xda")
        header = b"\xff\xda\x00\x08\x01" + bytes([number + 1]) + b"\x00\x00\x3f\x00"
        scans.append(header + data[start + 10 : -2])
    frame = files[0].index(b"\xff\xc0")
    wider = b"\xff\xc0\x00\x0e" + files[0][frame + 4 : frame + 9] + b"\x02\x01\x11\0\x02\x11\0"
    tables = files[0][frame + 13 : files[0].index(b"\xff\xda")]
    return files[0][:frame] + wider + tables + b"".join(scans) + b"\xff\xd9"


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_two_components_the_first_is_the_grey_picture(backend: str) -> None:
    first, second = picture(SIDE, SIDE, 1).convert("L"), picture(SIDE, SIDE, 2).convert("L")
    prepared = prepare(of_two_components(first, second), Settings(backend=backend))
    expected = prepare(encoded(first, "JPEG", quality=90), Settings(backend=backend))
    assert np.array_equal(prepared.pixels, expected.pixels)


# A drawn slope of 40x24 pixels, quality 90, 4:2:0, by jpegtran -arithmetic (base85).
ARITHMETIC = {
    "sequential": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ"
        "6%5fc;@6%`B*7Z?^47!ni}6#v@*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6"
        "ciK`6ciK`6ciK`6ciK`6cqo-"
        "01*fP7yu{(0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0Oz3#N&C7W%z&O*un$sa2RxTbg{vxo*|o"
        "a&*=w<3xiHLaN&8xP7HC~(vtwCG^ws69A@K?^lJzY#97Lw@{nemWqtNhdBZQ=i>C5M%o#(Fh1zTVYJIb<r9>k7<@"
        "b&3dPXVLba#^oJ_;a=X5ET@w3M-CnJ6WNJgS$@)@43)`JmK2}q+C@0*#"
    ),
    "progressive": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ"
        "6%5fc;@6%`B*7Z?^47!ni}6#v@*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6"
        "ciK`6ciK`6ciK`6ciK`6cqo;01*fP7yu{(0U`hb5di}c0sqVZ1^^HN5dYc$3<CiG0uTcb000610M9-"
        "u14CLuwLauz;^2TbiuI7drHt;9n7maR9#Eo)Fa28#fd9+@1P}%P+5iXv0RRC70vHq1yqC>1&!Stt25DlTARr(h|I"
        "7dc5e5I+00;pC0RcY&74o($P7ha~P*!`nh!|_tWB&gDZNUG`00a>Q|Jncu0RjO5KLI*J{2duZlkQ=sakGD%J;;NQ"
        "|I7dc5C#9*00;pA00ut-UK8=)*Z<4_1P}%P+5iXv0RRC%Axt10|Jncy0|5X600RI301y#Z0dhe9%m4%t1^?Or2mu"
        "2D0Y4BYTDL>^|I7dc5e5I+00;pB0RcY{)!Wtx>N@|-00a;P|Jncu0RaF3KM+(n!S#^zOq%&v^@VKCB>&j"
    ),
}


@pytest.mark.parametrize("kind", list(ARITHMETIC))
def test_arithmetic_coding_is_read(kind: str) -> None:
    y, x = np.mgrid[:24, :40]
    drawn = np.stack([6 * x, 10 * y, 255 - 4 * x - y], -1)
    data = base64.b85decode(ARITHMETIC[kind])
    pixels, name = decode.to_pixels(data, Limits())
    assert name == "JPEG YCbCr"
    assert np.abs(pixels[..., :3].astype(int) - drawn).max() <= 9
    with pytest.raises(RejectedImageError, match=r"damaged|truncated"):
        decode.to_pixels(data[:-40], Limits())


@pytest.mark.parametrize("adobe", [0, 2], ids=["CMYK", "YCCK"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_four_inks_are_mixed_as_their_formula_says(adobe: int, backend: str) -> None:
    """Stored inverted: 255 is no ink, and R = C K / 255 of what is stored."""
    stored = np.array([[[250, 40, 90, 200], [10, 240, 128, 255]], [[0, 0, 0, 90], [255] * 4]])
    inks = np.repeat(np.repeat(stored, 64, 0), 64, 1).astype(np.uint8)
    data = simplejpeg.encode_jpeg(inks, 95, "CMYK", "444")  # as YCCK
    if adobe == 0:
        data = encoded(Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=95, subsampling=0)
    assert data[data.index(b"Adobe") + 11] == adobe
    pixels = prepare(data, Settings(side=128, backend=backend)).pixels
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        *colours, black = stored[row, column].tolist()
        expected = np.array([colour * black / 255 for colour in colours])
        assert np.abs(pixels[64 * row + 32, 64 * column + 32] - expected).max() <= 3


# --------------------------------------------------------------------------- oddities of JPEGs


def jfif_of_revision_0(jpeg: bytes) -> bytes:
    return jpeg.replace(b"JFIF\0\x01\x01", b"JFIF\0\0\0")


def with_bytes_between_segments(jpeg: bytes) -> bytes:
    return jpeg[:20] + b"\0\0\0" + jpeg[20:]


def with_an_unknown_adobe_transform(jpeg: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\x2c" + jpeg[20:]


def with_a_progressive_scan_s_numbers(jpeg: bytes) -> bytes:
    scan = jpeg.index(b"\xff\xda") + 11
    assert jpeg[scan : scan + 3] == b"\0\x3f\0"
    return jpeg[:scan] + b"\0\0\0" + jpeg[scan + 3 :]


ODDITIES = [
    jfif_of_revision_0,
    with_bytes_between_segments,
    with_an_unknown_adobe_transform,
    with_a_progressive_scan_s_numbers,
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("odd", ODDITIES)
def test_an_oddity_of_the_header_changes_nothing(
    odd: Callable[[bytes], bytes], backend: str
) -> None:
    plain = encoded(picture(300, 300), "JPEG")
    with pytest.raises(ValueError, match=r"."):
        simplejpeg.decode_jpeg(odd(plain), "RGB")  # libjpeg has something against it
    expected = prepare(plain, Settings(backend=backend))
    got = prepare(odd(plain), Settings(backend=backend))
    assert np.array_equal(got.pixels, expected.pixels)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("odd", [lambda jpeg: jpeg, *ODDITIES])
def test_an_oddity_of_the_header_hides_no_damage(
    odd: Callable[[bytes], bytes], backend: str
) -> None:
    jpeg = odd(encoded(picture(300, 300), "JPEG"))
    scan = jpeg.index(b"\xff\xda") + 14
    middle = (scan + len(jpeg)) // 2
    assert "damaged" in reason(jpeg[:middle] + jpeg[-2:], backend=backend)
    assert "truncated" in reason(jpeg[:-2], backend=backend)
    assert "truncated" in reason(jpeg[:middle], backend=backend)


def test_bytes_between_the_last_scan_and_the_end_cost_no_pixel() -> None:
    plain = encoded(picture(300, 300), "JPEG")
    padded = plain[:-2] + b"\0" * 50 + plain[-2:]
    assert np.array_equal(prepare(padded, Settings()).pixels, prepare(plain, Settings()).pixels)


def test_extra_bytes_after_the_jpeg_hide_no_damage() -> None:
    jpeg = encoded(picture(300, 300), "JPEG")
    scan = jpeg.index(b"\xff\xda") + 14
    middle = (scan + len(jpeg)) // 2
    for backend in BACKENDS:
        assert "damaged" in reason(jpeg[:middle] + jpeg[-2:] + b"\0" * 99, backend=backend)


def test_extra_bytes_after_the_jpeg_are_ignored() -> None:
    data = jpeg_bytes(picture(300, 300))
    assert np.array_equal(
        prepare(data + b"\0" * 99, Settings()).pixels, prepare(data, Settings()).pixels
    )


# --------------------------------------------------------------------------- rejections


def png(
    width: int,
    height: int,
    depth: int = 8,
    colour: int = 2,
    rows: bytes = b"",
    transparent: bytes = b"",
) -> bytes:
    """A PNG with this header and these filtered rows, and a transparent colour."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"tRNS", transparent) if transparent else b""
    data += chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int, progressive: bool = False) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = bytearray(encoded(picture(64, 64), "JPEG", progressive=progressive))
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def test_an_empty_file_is_rejected() -> None:
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize("data", [b"\0", b"x" * 5000, b"<html></html>", b"\xff\xd8\xff", b"GIF89a"])
def test_garbage_is_rejected(data: bytes) -> None:
    assert reason(data)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_jpeg_is_rejected(kept: float, progressive: bool) -> None:
    data = encoded(picture(300, 300), "JPEG", progressive=progressive)
    assert reason(data[: int(kept * len(data))])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_is_rejected(mode: str) -> None:
    data = encoded(picture(300, 300).convert(mode), "JPEG")
    assert data.endswith(b"\xff\xd9")
    assert "truncated" in reason(data[:-2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("PPM", {})],
)
def test_a_missing_tail_is_accepted_when_asked_for(
    kind: str, options: dict[str, object], backend: str
) -> None:
    image = picture(300, 300) if kind == "JPEG" else Image.fromarray(noise(300, 300))
    data = encoded(image, kind, **options)
    half = data[: len(data) * 3 // 4]
    assert "--on-truncated" in reason(half, backend=backend)
    whole = prepare(data, Settings(backend=backend)).pixels
    left = prepare(half, Settings(backend=backend, on_truncated="accept")).pixels
    assert difference(left[:64], whole[:64]) <= (80 if options else 1)
    assert np.array_equal(
        left, prepare(half, Settings(backend=backend, on_truncated="accept")).pixels
    )


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_half_a_file_is_rejected(kind: str) -> None:
    data = encoded(Image.fromarray(noise(300, 300)), kind)
    assert reason(data[: len(data) // 2])


def test_a_jpeg_that_lost_pixels_is_rejected() -> None:
    """libjpeg fills the lost part with grey and only warns; Pillow says nothing at all."""
    data = jpeg_bytes(picture(300, 300))
    scan = data.index(b"\xff\xda") + 14
    middle = (scan + len(data)) // 2
    assert "damaged" in reason(data[:middle] + data[-2:])


def test_floating_point_pixels_are_rejected() -> None:
    assert "floating-point" in reason(encoded(Image.new("F", (300, 300), 0.5), "TIFF"))


@pytest.mark.parametrize("dtype", [np.int32, np.int16])
def test_signed_and_32_bit_samples_are_rejected(dtype: type) -> None:
    image = Image.fromarray(np.full((300, 300), 9, np.int32))
    data = encoded(image, "TIFF")
    if dtype is np.int16:  # sample format 2, bits 16: the tags of a signed picture
        data = encoded(
            Image.fromarray(np.full((300, 300), 9, np.uint16)), "TIFF", tiffinfo={339: 2}
        )
    assert "no known range" in reason(data)


@pytest.mark.parametrize("exif", EXIF)
def test_an_avif_is_turned_as_its_format_says(exif: str) -> None:
    plain = encoded(picture(400, 300), "AVIF", quality=100)
    tag = Image.Exif()
    tag[0x0112] = 6  # Pillow writes it as the format's own rotation
    turned = encoded(picture(400, 300), "AVIF", quality=100, exif=tag)
    with Image.open(io.BytesIO(plain)) as opened:
        expected = opened.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    got = prepare(turned, Settings(exif=exif))
    assert np.array_equal(got.pixels, prepare(encoded(expected, "PPM"), Settings()).pixels)


def test_formats_that_are_not_pictures_of_a_data_set_are_rejected() -> None:
    assert "known format" in reason(encoded(square(), "EPS"))  # Pillow would run Ghostscript


@pytest.mark.parametrize(
    "data",
    [
        jpeg_of_size(65535, 65535),
        jpeg_of_size(65500, 65500, progressive=True),
        png(65535, 65535),
        png(2**31 - 1, 2**31 - 1),
        encoded(Image.new("1", (7000, 7000)), "PNG"),
        encoded(Image.new("1", (7000, 7000)), "GIF"),
    ],
    ids=["jpeg", "progressive", "png", "huge", "whole png", "gif"],
)
def test_a_bomb_is_rejected_by_its_header(data: bytes) -> None:
    assert "(--max-pixels)" in reason(data)


PEAK_OF_PREPARE = """
import sys
from prep import images

data = sys.stdin.buffer.read()
try:
    print(images.prepare(data, images.Settings(backend=sys.argv[1], exif="apply")).kind)
except images.RejectedImageError as error:
    print(error)
status = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())
kib = {name: int(status[name].split()[0]) for name in ("VmHWM", "RssFile", "RssShmem")}
print((kib["VmHWM"] - kib["RssFile"] - kib["RssShmem"]) >> 10)
"""


def peak_of_prepare(data: bytes, backend: str = "turbo") -> tuple[str, int]:
    """What a fresh process says of these bytes, and all its private memory, MiB."""
    ended = subprocess.run(
        [sys.executable, "-c", PEAK_OF_PREPARE, backend],
        input=data,
        capture_output=True,
        check=True,
    )
    said, mebibytes = ended.stdout.decode().splitlines()
    return said, int(mebibytes)


def tiff(tags: list[tuple[int, int, int, int]], body: bytes) -> bytes:
    """A TIFF of this directory, (tag, type, count, value or place); the body lies at 8."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = b"II*\0" + struct.pack("<I", 8 + len(body))
    return header + body + struct.pack("<H", len(tags)) + entries + b"\0" * 4


GREY_30_BY_20 = [(256, 3, 1, 30), (257, 3, 1, 20), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]


def tiff_of_many_tags() -> bytes:
    """400 tags that name the same 8 MiB: 3 GiB when all are read."""
    strip = [(273, 4, 1, 8), (278, 3, 1, 20), (279, 4, 1, 600)]
    texts = [(40_000 + number, 2, 8 << 20, 8) for number in range(400)]
    return tiff(sorted([*GREY_30_BY_20, (259, 3, 1, 1), *strip]) + texts, b"x" * (8 << 20))


def tiff_of_a_huge_tile() -> bytes:
    """30x20 pixels in a tile of 60000x60000."""
    body = zlib.compress(bytes(1 << 20))
    tile = [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, len(body))]
    return tiff(sorted([*GREY_30_BY_20, (259, 3, 1, 8), *tile]), body)


@pytest.mark.parametrize("backend", ["turbo", "pillow"])
@pytest.mark.parametrize("bomb", [tiff_of_many_tags, tiff_of_a_huge_tile])
def test_a_bomb_that_no_header_gives_away_stays_under_1_gib(
    bomb: Callable[[], bytes], backend: str
) -> None:
    _, mebibytes = peak_of_prepare(bomb(), backend)
    assert mebibytes < 1024


def test_what_takes_too_much_memory_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (3000, 3000)), "PNG")
    assert prepare(data, Settings()).kind == "PNG RGB"
    monkeypatch.setattr(bounds, "GROWTH", 8 << 20)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert "memory" in reason(data)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    monkeypatch.undo()
    assert prepare(data, Settings()).kind == "PNG RGB"


def test_a_jpeg_of_hundreds_of_scans_is_rejected() -> None:
    """Every scan is a pass over all pixels."""
    data = encoded(picture(2000, 2000), "JPEG", progressive=True)
    scans = data + b"\xff\xda" * 500 + bytes(100_000)
    assert "scans" in reason(scans)


def test_scans_count_in_a_sequential_jpeg_too_where_the_first_one_lacks_a_component() -> None:
    data = encoded(picture(2000, 2000), "JPEG")
    scan, more = data.index(b"\xff\xda"), b"\xff\xda" * 501 + bytes(100_000)
    assert data[scan + 2 : scan + 5] == b"\0\x0c\x03"
    of_one = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    assert "scans" in reason(data[:scan] + of_one + data[scan + 14 :] + more)
    assert prepare(data + more, Settings()).kind == "JPEG YCbCr"  # none of them is read


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\xd0"])
def test_a_marker_without_a_segment_does_not_hide_scans_from_the_count(marker: bytes) -> None:
    """Whoever takes the next marker for its length, 65534, comes to a false header."""
    frame = b"\xff\xc0\0\x11\x08\0\x10\0\x10\x03" + bytes(9)
    scan = b"\xff\xda\0\x0c\x03" + bytes(9)
    assert jpeg._is_one_scan(b"\xff\xd8" + frame + scan)
    assert not jpeg._is_one_scan(b"\xff\xd8" + marker + b"\xff\xfe" + bytes(65532) + frame + scan)


@pytest.mark.parametrize(
    "data",
    [jpeg_of_size(65500, 65500, progressive=True), png(65535, 65535)],
    ids=["progressive jpeg", "png"],
)
def test_a_bomb_costs_next_to_no_memory(data: bytes) -> None:
    said, mebibytes = peak_of_prepare(data)
    assert "(--max-pixels)" in said
    assert mebibytes < 80  # of which 50 are there before


@pytest.mark.parametrize("kind", [pytest.param("WEBP", marks=pytest.mark.soak), "CMYK"])
def test_a_picture_just_under_the_limit_stays_under_1_gib(kind: str) -> None:
    """Half-transparent WebP and progressive CMYK, the most costly of those tried."""
    if kind == "WEBP":
        image = Image.new("RGBA", (6300, 6300), (1, 2, 3, 4))
        data = encoded(image, "WEBP", quality=1, method=0)
    else:
        data = encoded(Image.new("CMYK", (6300, 6300), (1, 2, 3, 4)), "JPEG", progressive=True)
    said, mebibytes = peak_of_prepare(data)
    assert kind in said
    assert 150 < mebibytes < 1024


@pytest.mark.soak
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_largest_untidy_jpeg_stays_under_1_gib(backend: str) -> None:
    """Of as many pixels and bytes as are taken, held twice: without the junk, too."""
    data = encoded(Image.new("RGB", (6300, 6300), (90, 10, 200)), "JPEG", progressive=True)
    data = data[:20] + b"junk" + data[20:-2]
    data += bytes(MAX_BYTES - len(data) - 2) + b"\xff\xd9"
    said, mebibytes = peak_of_prepare(data, backend)
    assert "JPEG" in said
    assert 500 < mebibytes < 1024


JPEG = jpeg_bytes(picture(90, 70))
PNG = encoded(picture(40, 30), "PNG")
PALETTE = encoded(picture(40, 30).convert("P"), "PNG", transparency=0)
WEBP = encoded(picture(40, 30), "WEBP")
GIF = encoded(picture(40, 30), "GIF")
TIFF = encoded(picture(20, 15), "TIFF")


@given(
    data=st.sampled_from([JPEG, PNG, PALETTE, WEBP, GIF, TIFF]),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.none() | st.floats(0, 1),
)
@settings(max_examples=400)
def test_changed_bytes_give_a_picture_or_a_rejection(
    data: bytes, places: list[tuple[float, int]], cut: float | None
) -> None:
    changed = bytearray(data)
    for place, value in places:
        changed[int(place * len(changed))] = value
    if cut is not None:
        del changed[int(cut * len(changed)) :]
    try:
        prepared = prepare(bytes(changed), Settings(side=16, max_pixels=1_000_000))
    except RejectedImageError:
        return
    assert prepared.pixels.shape == (16, 16, 3)
