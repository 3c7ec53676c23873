"""SxS from any picture: the kernel, and each backend against what it has to equal."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SIDE, Pixels, difference, noise, picture
from PIL import Image

from prep import bilinear, scale

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
FITS = ("crop", "squash")


def rgbx(pixels: Pixels) -> Pixels:
    """[H,W,3] to [H,W,4]; the fourth byte has to make no difference."""
    return np.concatenate([pixels, noise(pixels.shape[1], pixels.shape[0], 1)], axis=2)


def pictures() -> list[Pixels]:
    """Noise, black and white, and smooth, of every size in SIZES and of some random ones."""
    generator = np.random.default_rng(5)
    sizes = SIZES + [tuple(generator.integers(20, 900, 2).tolist()) for _ in range(20)]
    made = []
    for number, (width, height) in enumerate(sizes):
        made.append(noise(width, height, seed=number))
        made.append(noise(width, height, seed=number) // 128 * 255)
        made.append(np.array(picture(width, height, number)))
    return made


# --------------------------------------------------------------------------- turbo


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("side", [SIDE, 37])
def test_turbo_is_within_2_grey_levels_of_pillow(fit: str, side: int) -> None:
    for pixels in pictures():
        expected = scale.pillow(Image.fromarray(pixels), side, fit)
        got = scale.turbo(rgbx(pixels), side, fit)
        assert got.shape == (side, side, 3)
        assert difference(got, expected) <= 2, pixels.shape


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    side=st.integers(8, 300),
    seed=st.integers(0, 9),
    hard=st.booleans(),
    fit=st.sampled_from(FITS),
)
@settings(max_examples=150)
def test_turbo_is_within_2_grey_levels_of_pillow_for_any_size(
    width: int, height: int, side: int, seed: int, hard: bool, fit: str
) -> None:
    pixels = noise(width, height, seed=seed)
    if hard:
        pixels = pixels // 128 * 255
    expected = scale.pillow(Image.fromarray(pixels), side, fit)
    assert difference(scale.turbo(rgbx(pixels), side, fit), expected) <= 2


@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
@pytest.mark.parametrize("size", SIZES[::3])
def test_turbo_keeps_an_even_colour(value: int, size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 4), value, np.uint8)
    for fit in FITS:
        assert (scale.turbo(pixels, SIDE, fit) == value).all()


def test_turbo_keeps_a_picture_of_the_right_size() -> None:
    pixels = noise(SIDE, SIDE, 4)
    assert np.array_equal(scale.turbo(pixels, SIDE, "crop"), pixels[..., :3])


def in_float(pixels: Pixels, side: int, fit: str) -> Pixels:
    """Plain NumPy: the triangle filter as the words say it, nothing rounded before the end."""
    height, width = pixels.shape[:2]
    new_width, new_height, left, top = side, side, 0, 0
    if fit == "crop":
        new_width = int(side * width / min(width, height))
        new_height = int(side * height / min(width, height))
        left, top = round((new_width - side) / 2), round((new_height - side) / 2)

    def weights(old: int, new: int, first: int) -> np.ndarray:
        centre = (first + np.arange(side) + 0.5) * old / new
        distance = np.abs(np.arange(old) + 0.5 - centre[:, None]) / max(old / new, 1.0)
        triangle = np.maximum(1 - distance, 0)
        return triangle / triangle.sum(1, keepdims=True)  # [side, old]

    rows, columns = weights(height, new_height, top), weights(width, new_width, left)
    exact = np.einsum("yh,hwc,xw->yxc", rows, pixels[..., :3].astype(float), columns, optimize=True)
    return np.floor(exact + 0.5).astype(np.uint8)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(500, 375), (333, 500), (90, 40), (1200, 700), (256, 300)])
def test_turbo_is_within_1_grey_level_of_exact_arithmetic(size: tuple[int, int], fit: str) -> None:
    pixels = noise(*size, 4)
    assert difference(scale.turbo(pixels, SIDE, fit), in_float(pixels, SIDE, fit)) <= 1


@pytest.mark.parametrize(("width", "height"), [(30, 20), (9, 31), (90, 14), (8, 8), (1, 5)])
def test_the_kernel_uncompiled_gives_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    pixels = noise(width, height, 4)
    compiled = [scale.turbo(pixels, 8, fit) for fit in FITS]
    bilinear.taps.cache_clear()
    for name in ("fill_taps", "resample_blocks", "mix", "weigh", "tap", "turn", "drop_fourth"):
        monkeypatch.setattr(bilinear, name, getattr(bilinear, name).py_func)
    with np.errstate(over="raise"):  # 16 bits are enough
        plain = [scale.turbo(pixels, 8, fit) for fit in FITS]
    bilinear.taps.cache_clear()
    assert np.array_equal(compiled, plain)


@given(
    old=st.integers(1, 3000), new=st.integers(1, 3000), first=st.integers(0, 2999), data=st.data()
)
@settings(max_examples=200)
def test_the_weights_of_a_pixel_sum_to_1(
    old: int, new: int, first: int, data: st.DataObject
) -> None:
    first = first % new
    count = data.draw(st.integers(1, new - first))
    if old > bilinear.MAX_SCALE * new:
        return
    starts, weights = bilinear.taps(old, new, first, count)
    assert weights.shape == (count, weights.shape[1])
    assert weights.shape[1] == 3 or weights.shape[1] % bilinear.GROUP == 0
    assert (weights.sum(axis=1, dtype=np.int64) == bilinear.UNIT).all()
    assert (starts >= 0).all()
    used = (weights != 0) * (np.arange(weights.shape[1]) + 1)
    assert (starts + used.max(axis=1) <= old).all()


@pytest.mark.parametrize("size", [(200_000, 1), (3, 90_000)])
def test_a_picture_of_extreme_shape_costs_no_more_than_itself(size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 4), 77, np.uint8)
    for fit in FITS:
        assert (scale.turbo(pixels, SIDE, fit) == 77).all()


# --------------------------------------------------------------------------- pillow


@pytest.mark.parametrize("fit", FITS)
def test_pillow_equals_torchvision_bit_for_bit(fit: str) -> None:
    from torchvision.transforms import v2

    steps = [v2.Resize(SIDE), v2.CenterCrop(SIDE)] if fit == "crop" else [v2.Resize((SIDE, SIDE))]
    reference = v2.Compose(steps)
    for pixels in pictures():
        image = Image.fromarray(pixels)
        assert np.array_equal(scale.pillow(image, SIDE, fit), reference(image)), image.size


@pytest.mark.parametrize("side", [8, 37, 300])
def test_pillow_equals_torchvision_for_other_sides(side: int) -> None:
    from torchvision.transforms import v2

    reference = v2.Compose([v2.Resize(side), v2.CenterCrop(side)])
    for size in ((421, 337), (337, 421), (20, 31), (999, 1000)):
        image = picture(*size)
        assert np.array_equal(scale.pillow(image, side, "crop"), reference(image))


@pytest.mark.parametrize("size", [(1900, 3), (3, 1901), (2000, 7)])
def test_pillow_of_the_crop_alone_is_within_1_grey_level_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    image = Image.fromarray(noise(*size))
    whole = scale.pillow(image, 64, "crop")
    monkeypatch.setattr(scale, "MAX_RESIZED", 64 * 64)
    assert difference(scale.pillow(image, 64, "crop"), whole) <= 1


# --------------------------------------------------------------------------- opencv-2012


@pytest.mark.parametrize(
    ("size", "resized", "how"),
    [
        ((500, 375), (341, 256), cv2.INTER_AREA),
        ((500, 333), (384, 256), cv2.INTER_AREA),  # 384.38
        ((333, 501), (256, 385), cv2.INTER_AREA),  # 385.15
        ((400, 301), (340, 256), cv2.INTER_AREA),  # 340.20
        ((103, 100), (264, 256), cv2.INTER_CUBIC),  # 263.68: rounded up, torchvision has 263
        ((50, 200), (256, 1024), cv2.INTER_CUBIC),
        ((300, 256), (300, 256), cv2.INTER_LINEAR),
    ],
)
def test_opencv_is_the_authors_converter(
    size: tuple[int, int], resized: tuple[int, int], how: int
) -> None:
    pixels = noise(*size)
    whole = cv2.resize(pixels, resized, interpolation=how)
    left, top = (resized[0] - 256) // 2, (resized[1] - 256) // 2
    expected = whole[top : top + 256, left : left + 256]
    assert np.array_equal(scale.opencv(rgbx(pixels), 256, "crop"), expected)


@pytest.mark.parametrize("side", [64, 256])
def test_opencv_squashes(side: int) -> None:
    for size in ((500, 375), (500, 100)):
        pixels = noise(*size)
        how = cv2.INTER_AREA if min(size) > side else cv2.INTER_CUBIC
        expected = cv2.resize(pixels, (side, side), interpolation=how)
        assert np.array_equal(scale.opencv(rgbx(pixels), side, "squash"), expected)


@pytest.mark.parametrize(("side", "shape"), [(3000, (100, 500)), (4096, (300, 100))])
def test_opencv_enlarges_a_long_picture_to_a_large_size(side: int, shape: tuple[int, int]) -> None:
    """The whole resized picture would have more than MAX_RESIZED pixels."""
    pixels = np.full((*shape, 4), 90, np.uint8)
    assert difference(scale.opencv(pixels, side, "crop"), 90) == 0


def test_opencv_cuts_off_the_ends_of_a_very_long_picture() -> None:
    ramp = np.linspace(0, 255, 400_001).astype(np.uint8)
    pixels = np.broadcast_to(ramp[:, None, None], (400_001, 1, 4))
    assert difference(scale.opencv(np.ascontiguousarray(pixels), 256, "crop"), 127) <= 1
