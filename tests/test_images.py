"""Bytes to a prepared picture, a prepared picture to bytes: prep.images as a whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
from conftest import jpeg_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SIDE, difference, encoded, noise, picture, square
from PIL import Image

from prep import images, scale
from prep.images import (
    BACKENDS,
    FITS,
    RejectedImageError,
    Settings,
    decode_as_ffcv,
    encode_jpeg,
    jpeg_shape,
    prepare,
)

# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "wrong", [{"backend": "fast"}, {"fit": ""}, {"exif": "yes"}, {"on_truncated": "keep"}]
)
def test_an_unknown_word_is_named_with_the_known_ones(wrong: dict[str, str]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} '{value}' is none of .*, "):
        Settings(**wrong)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_each_backend_resizes_the_same_decoded_picture(kind: str, fit: str) -> None:
    data = encoded(picture(421, 337), kind)
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    rgbx = np.asarray(image.convert("RGBX"))
    expected = {
        "turbo": scale.turbo(rgbx, SIDE, fit),
        "pillow": scale.pillow(image, SIDE, fit),
        "opencv-2012": scale.opencv(rgbx, SIDE, fit),
    }
    for backend in BACKENDS:
        prepared = prepare(data, Settings(backend=backend, fit=fit))
        assert np.array_equal(prepared.pixels, expected[backend]), backend
        assert (prepared.width, prepared.height) == (421, 337)
    assert difference(expected["turbo"], expected["opencv-2012"]) > 0


def test_a_picture_of_the_right_size_is_kept_exactly() -> None:
    pixels = noise(SIDE, SIDE)
    data = encoded(Image.fromarray(pixels), "PNG")
    for backend in BACKENDS:
        assert np.array_equal(prepare(data, Settings(backend=backend)).pixels, pixels)


@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    side=st.integers(1, 64),
    backend=st.sampled_from(BACKENDS),
    fit=st.sampled_from(FITS),
)
@settings(max_examples=60)
def test_every_size_gives_a_square_of_the_picture_s_colours(
    width: int, height: int, side: int, backend: str, fit: str
) -> None:
    image = Image.new("RGB", (width, height), (10, 100, 200))
    prepared = prepare(encoded(image, "PPM"), Settings(side=side, backend=backend, fit=fit))
    assert prepared.pixels.shape == (side, side, 3)
    assert prepared.pixels.dtype == np.uint8
    assert (prepared.pixels == (10, 100, 200)).all()
    assert (prepared.width, prepared.height) == (width, height)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_many_pixels_needs_no_long_resized_picture(backend: str) -> None:
    strip = np.full((1, 200_000, 3), 77, np.uint8)
    data = encoded(Image.fromarray(strip), "PNG")
    assert (prepare(data, Settings(backend=backend)).pixels == 77).all()


# --------------------------------------------------------------------------- limits


def reason(data: bytes, max_pixels: int = images.MAX_PIXELS) -> str:
    with pytest.raises(RejectedImageError) as caught:
        prepare(data, Settings(max_pixels=max_pixels))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_max_pixels_is_the_largest_that_is_taken() -> None:
    data = encoded(Image.new("RGB", (30, 20)), "PNG")
    assert prepare(data, Settings(side=8, max_pixels=600)).width == 30
    assert "30x20 is more than 599 pixels" in reason(data, max_pixels=599)


def test_a_file_of_too_many_bytes_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert reason(b"x" * 101) == "its 101 bytes are more than 100"


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
        assert np.array_equal(decode_as_ffcv(data, np.zeros_like(ffcv_pixels)), ffcv_pixels)


def test_a_picture_is_decoded_where_it_is_wanted() -> None:
    pixels = np.array(picture(33, 33))
    data, slots = encode_jpeg(pixels, 95), np.zeros((2, 33, 33, 3), np.uint8)
    decoded = decode_as_ffcv(data, slots[1])
    assert decoded.ctypes.data == slots[1].ctypes.data
    assert np.array_equal(slots[1], decode_as_ffcv(data))
    assert (slots[0] == 0).all()
    with pytest.raises(ValueError, match="too small"):
        decode_as_ffcv(data, np.zeros((32, 33, 3), np.uint8))


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
