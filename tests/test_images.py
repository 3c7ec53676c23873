"""Bytes to 256x256 RGB: torchvision's picture, every colour mode, and nothing bad gets through."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from conftest import jpeg_bytes, smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep import images
from prep.images import RejectedImageError, decode_as_ffcv, encode_jpeg, jpeg_shape, prepare

SIDE = 256
Pixels = npt.NDArray[np.uint8]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return smooth_picture(np.random.default_rng(seed), width, height)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def difference(a: npt.ArrayLike, b: npt.ArrayLike) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def reason(data: bytes, max_pixels: int = images.MAX_PIXELS) -> str:
    with pytest.raises(RejectedImageError) as caught:
        prepare(data, SIDE, max_pixels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------- geometry

SIZES = [
    (500, 375),
    (375, 500),
    (256, 256),
    (257, 256),
    (256, 257),
    (255, 255),
    (512, 512),
    (513, 511),
    (1023, 771),
    (2048, 300),
    (300, 2049),
    (64, 48),
    (33, 77),
    (2, 3),
    (1, 1),
    (1000, 9),
    (7, 900),
    (3000, 256),
    (256, 3001),
]


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "noise"])
def test_it_equals_torchvision_on_pil_within_1_grey_level(smooth: bool) -> None:
    from torchvision.transforms import v2

    reference = v2.Compose([v2.Resize(SIDE), v2.CenterCrop(SIDE)])
    generator = np.random.default_rng(5)
    sizes = SIZES + [tuple(generator.integers(20, 900, 2).tolist()) for _ in range(20)]
    for number, (width, height) in enumerate(sizes):
        image = (
            picture(width, height, number)
            if smooth
            else Image.fromarray(noise(width, height, seed=number))
        )
        expected = reference(image)
        assert expected.size == (SIDE, SIDE)
        got = prepare(encoded(image, "PNG", compress_level=0), SIDE).pixels
        assert difference(got, expected) <= 1, (width, height)


@pytest.mark.parametrize("side", [8, 37, 300])
def test_other_sides_crop_the_centre_of_the_resized_picture(side: int) -> None:
    image = picture(421, 337)
    resized = image.resize((int(side * 421 / 337), side), Image.Resampling.BILINEAR)
    left = round((resized.width - side) / 2)
    expected = resized.crop((left, 0, left + side, side))
    assert difference(prepare(encoded(image, "PNG"), side).pixels, expected) <= 1


def test_a_picture_of_the_right_size_is_kept_exactly() -> None:
    pixels = noise(SIDE, SIDE)
    assert np.array_equal(prepare(encoded(Image.fromarray(pixels), "PNG"), SIDE).pixels, pixels)


def test_a_row_of_many_pixels_needs_no_long_resized_picture() -> None:
    strip = np.full((1, 200_000, 3), 77, np.uint8)
    assert (prepare(encoded(Image.fromarray(strip), "PNG"), SIDE).pixels == 77).all()


@given(width=st.integers(1, 120), height=st.integers(1, 120), side=st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_every_size_gives_a_square_of_the_picture_s_colours(
    width: int, height: int, side: int
) -> None:
    image = Image.new("RGB", (width, height), (10, 100, 200))
    prepared = prepare(encoded(image, "PPM"), side)
    assert prepared.pixels.shape == (side, side, 3)
    assert prepared.pixels.dtype == np.uint8
    assert (prepared.pixels == (10, 100, 200)).all()
    assert (prepared.width, prepared.height) == (width, height)


# --------------------------------------------------------------------------- colour modes


def expected_of(rgb: Image.Image) -> Pixels:
    """A 256x256 picture needs no resizing: only the conversion to RGB is seen."""
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


def square(mode: str = "RGB") -> Image.Image:
    return picture(SIDE, SIDE).convert(mode)


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
    prepared = prepare(data, SIDE)
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
    assert difference(prepare(data, SIDE).pixels, expected) <= 1
    assert difference(prepare(encoded(square("CMYK"), "JPEG"), SIDE).pixels, expected) > 50


def over_white(colour: tuple[int, int, int], alpha: int) -> list[float]:
    return [(value * alpha + 255 * (255 - alpha)) / 255 for value in colour]


@pytest.mark.parametrize("alpha", [0, 1, 100, 128, 254, 255])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_are_laid_over_white(kind: str, alpha: int) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(Image.new("RGBA", (300, 300), (200, 40, 0, alpha)), kind, **options)
    pixels = prepare(data, SIDE).pixels
    assert np.abs(pixels - np.array(over_white((200, 40, 0), alpha))).max() <= 1


def test_grey_with_alpha_is_laid_over_white() -> None:
    pixels = prepare(encoded(Image.new("LA", (300, 300), (10, 51)), "PNG"), SIDE).pixels
    assert np.abs(pixels - np.array(over_white((10, 10, 10), 51))).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])], ids=["index", "table"])
def test_a_transparent_palette_colour_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, SIDE, 128))
    pixels = prepare(encoded(image, "PNG", transparency=transparency), SIDE).pixels
    assert (pixels[:128] == (255, 255, 255)).all()
    assert (pixels[128:] == (255, 0, 0)).all()


def test_a_half_transparent_palette_colour_is_blended() -> None:
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([255, 0, 0])
    pixels = prepare(encoded(image, "PNG", transparency=bytes([51])), SIDE).pixels
    assert np.abs(pixels - np.array(over_white((255, 0, 0), 51))).max() <= 1


def test_a_transparent_rgb_colour_is_white() -> None:
    image = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, SIDE, 128))
    pixels = prepare(encoded(image, "PNG", transparency=(1, 2, 3)), SIDE).pixels
    assert (pixels[:128] == 9).all()
    assert (pixels[128:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    samples = np.linspace(0, 65535, SIDE * SIDE).round().astype(np.uint16).reshape(SIDE, SIDE)
    pixels = prepare(encoded(Image.fromarray(samples), kind), SIDE).pixels
    assert np.array_equal(pixels, np.round(samples[..., None] / 257).repeat(3, axis=2))


def test_16_bit_colour_is_scaled() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32896, 257) * SIDE for _ in range(SIDE))
    pixels = prepare(png(SIDE, SIDE, depth=16, colour=2, rows=rows), SIDE).pixels
    assert (pixels == (255, 128, 1)).all()


def test_a_png_called_jpeg_is_a_png() -> None:
    assert prepare(encoded(square(), "PNG"), SIDE).kind == "PNG RGB"


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(400, 300)
    turned, plain = encoded(image, "JPEG", exif=exif), encoded(image, "JPEG")
    assert turned != plain
    assert np.array_equal(prepare(turned, SIDE).pixels, prepare(plain, SIDE).pixels)
    assert (prepare(turned, SIDE).width, prepare(turned, SIDE).height) == (400, 300)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    first, *others = (Image.new("RGB", (300, 300), colour) for colour in colours)
    data = encoded(first, kind, save_all=True, append_images=others)
    assert difference(prepare(data, SIDE).pixels, np.full((SIDE, SIDE, 3), (255, 0, 0))) <= 2


def test_extra_bytes_after_the_jpeg_are_ignored() -> None:
    data = jpeg_bytes(picture(300, 300))
    assert np.array_equal(prepare(data + b"\0" * 99, SIDE).pixels, prepare(data, SIDE).pixels)


# --------------------------------------------------------------------------- rejections


def png(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG with this header and these filtered rows."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
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


def test_formats_that_are_not_pictures_of_a_data_set_are_rejected() -> None:
    assert "EPS" in reason(encoded(square(), "EPS"))  # Pillow would run Ghostscript


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

def peak():  # of this program alone: ru_maxrss begins at what its parent had
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

data = sys.stdin.buffer.read()
before = peak()
try:
    images.prepare(data, 256)
    print("taken")
except images.RejectedImageError as error:
    print(error)
print(peak() - before)
"""


def peak_of_prepare(data: bytes) -> tuple[str, int]:
    """What a fresh process says of these bytes, and the memory that it needed, MiB."""
    ended = subprocess.run(
        [sys.executable, "-c", PEAK_OF_PREPARE], input=data, capture_output=True, check=True
    )
    said, kilobytes = ended.stdout.decode().splitlines()
    return said, int(kilobytes) // 1024


@pytest.mark.parametrize(
    "data",
    [jpeg_of_size(65500, 65500, progressive=True), png(65535, 65535)],
    ids=["progressive jpeg", "png"],
)
def test_a_bomb_costs_next_to_no_memory(data: bytes) -> None:
    said, mebibytes = peak_of_prepare(data)
    assert "(--max-pixels)" in said
    assert mebibytes < 20


def test_a_picture_just_under_the_limit_stays_under_800_mib() -> None:
    """Half-transparent WebP, the most costly of the formats tried; prep itself has 40 MiB."""
    image = Image.new("RGBA", (6300, 6300), (1, 2, 3, 4))
    said, mebibytes = peak_of_prepare(encoded(image, "WEBP", quality=1, method=0))
    assert said == "taken"
    assert 150 < mebibytes < 800


def test_max_pixels_is_the_largest_that_is_taken() -> None:
    data = encoded(Image.new("RGB", (30, 20)), "PNG")
    assert prepare(data, 8, max_pixels=600).width == 30
    assert "30x20 is more than 599 pixels" in reason(data, max_pixels=599)


def test_a_file_of_too_many_bytes_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert reason(b"x" * 101) == "its 101 bytes are more than 100"


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
@settings(max_examples=400, deadline=None)
def test_changed_bytes_give_a_picture_or_a_rejection(
    data: bytes, places: list[tuple[float, int]], cut: float | None
) -> None:
    changed = bytearray(data)
    for place, value in places:
        changed[int(place * len(changed))] = value
    if cut is not None:
        del changed[int(cut * len(changed)) :]
    try:
        prepared = prepare(bytes(changed), 16, max_pixels=1_000_000)
    except RejectedImageError:
        return
    assert prepared.pixels.shape == (16, 16, 3)


# --------------------------------------------------------------------------- as FFCV decodes


def test_decode_as_ffcv_equals_ffcv_on_200_pictures() -> None:
    from ffcv.libffcv import imdecode

    generator = np.random.default_rng(11)
    for number in range(200):
        side = int(generator.integers(8, 300))
        image = picture(side, side, number)
        pixels = noise(side, side, seed=number) if number % 4 == 0 else np.array(image)
        data = encode_jpeg(pixels, int(generator.integers(50, 101)))
        ffcv_pixels = np.zeros((side, side, 3), np.uint8)
        source = np.frombuffer(data, np.uint8)
        imdecode(source, ffcv_pixels, side, side, side, side, 0, 0, 1, 1, False, False)
        assert np.array_equal(decode_as_ffcv(data), ffcv_pixels)


def test_the_fast_dct_matters() -> None:
    data = encode_jpeg(noise(64, 64), 95)
    exact = np.asarray(Image.open(io.BytesIO(data)))
    assert difference(decode_as_ffcv(data), exact) > 0


def test_decode_as_ffcv_refuses_damage() -> None:
    data = encode_jpeg(noise(64, 64), 95)
    with pytest.raises(ValueError, match="Premature end"):
        decode_as_ffcv(data[:-9])


def test_an_encoded_picture_is_baseline_420_and_close() -> None:
    pixels = np.array(picture(SIDE, SIDE))
    data = encode_jpeg(pixels, 95)
    assert data == encode_jpeg(pixels, 95)
    with Image.open(io.BytesIO(data)) as opened:
        assert "progressive" not in opened.info
        assert [layer[1:3] for layer in opened.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
    assert difference(decode_as_ffcv(data), pixels) <= 12
    assert len(encode_jpeg(pixels, 50)) < len(data)


def test_a_view_with_strides_is_encoded_as_its_copy() -> None:
    pixels = noise(64, 64)[:, ::-1]
    assert encode_jpeg(pixels, 90) == encode_jpeg(pixels.copy(), 90)


def test_the_shape_of_a_jpeg_is_read_from_its_header() -> None:
    assert jpeg_shape(jpeg_bytes(picture(31, 77))) == (77, 31, 3)
    assert jpeg_shape(encoded(square("L"), "JPEG")) is None
    assert jpeg_shape(encoded(square("CMYK"), "JPEG")) is None
    assert jpeg_shape(b"no picture") is None
