"""Exact sums: equal to Python's integers, in any batches and any order."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from conftest import noise_images
from hypothesis import given, settings
from hypothesis import strategies as st

from prep import moments
from prep.moments import Moments, moments_of, zero_moments


def plain(images: npt.NDArray[np.uint8]) -> Moments:
    """The definition, in NumPy's int64."""
    wide = images.astype(np.int64)
    pixels = wide.reshape(-1, 3)
    return Moments(len(images), wide.sum(axis=0), pixels.T @ pixels)


def equal(a: Moments, b: Moments) -> bool:
    return (
        a.count == b.count
        and np.array_equal(a.pixel_sums, b.pixel_sums)
        and np.array_equal(a.product_sums, b.product_sums)
    )


@given(count=st.integers(0, 40), side=st.integers(1, 40), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_the_sums_are_exact(count: int, side: int, seed: int) -> None:
    images = noise_images(count, side, seed)
    got = moments_of(images)
    assert equal(got, plain(images))
    assert got.pixel_sums.dtype == got.product_sums.dtype == np.int64


@given(count=st.integers(1, 6), side=st.integers(1, 8), seed=st.integers(0, 999))
@settings(max_examples=40)
def test_the_sums_equal_python_s_integers(count: int, side: int, seed: int) -> None:
    images = noise_images(count, side, seed)
    got = moments_of(images)
    pixels = images.reshape(-1, 3).tolist()
    for a in range(3):
        for b in range(3):
            assert got.product_sums[a, b] == sum(pixel[a] * pixel[b] for pixel in pixels)
    columns = zip(*images.reshape(count, -1).tolist(), strict=True)
    assert got.pixel_sums.ravel().tolist() == [sum(column) for column in columns]


def test_the_interpreted_kernels_equal_the_compiled_ones() -> None:
    group = noise_images(8, 5).reshape(8, 75)
    for kernel in (moments.add_few, moments.add_few.py_func):
        sums = np.full(75, 7, np.uint16)
        kernel(group, 4, 30, 36, sums)
        assert np.array_equal(sums[30:66], 7 + group[4:, 30:66].astype(int).sum(axis=0))
        assert (sums[:30] == 7).all()
        assert (sums[66:] == 7).all()
    for kernel in (moments.split_channels, moments.split_channels.py_func):
        channels = np.zeros((3, 12), np.uint8)
        kernel(group, 2, 30, 12, *channels)
        assert np.array_equal(channels, group[2, 30:66].reshape(12, 3).T)
    for kernel in (moments.add_products, moments.add_products.py_func):
        products = np.arange(6)
        kernel(*channels, 12, products)
        r, g, b = channels.astype(int)
        assert products.tolist() == [
            r @ r, 1 + g @ g, 2 + b @ b, 3 + r @ g, 4 + r @ b, 5 + g @ b
        ]  # fmt: skip
    sums, products = np.zeros(75, np.uint16), np.zeros(6, np.int64)
    moments.accumulate.py_func(group, sums, products)
    compiled = moments_of(group.reshape(-1, 5, 5, 3))
    assert np.array_equal(sums.reshape(5, 5, 3), compiled.pixel_sums)
    rows, columns = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
    assert np.array_equal(products, compiled.product_sums[rows, columns])


def test_as_many_of_the_brightest_pictures_as_16_bits_sum_do_not_overflow() -> None:
    assert moments.FULL * 255 < 2**16
    images = np.full((moments.FULL, 2, 2, 3), 255, np.uint8)
    got = moments_of(images)
    assert (got.pixel_sums == moments.FULL * 255).all()
    assert (got.product_sums == moments.FULL * 4 * 255**2).all()


@pytest.mark.parametrize("extra", [1, 3, 300])
def test_more_pictures_than_16_bits_sum_do_not_overflow(extra: int) -> None:
    images = np.full((moments.FULL + extra, 1, 1, 3), 255, np.uint8)
    assert equal(moments_of(images), plain(images))


def test_a_block_of_the_brightest_pixels_does_not_overflow() -> None:
    assert moments.BLOCK * 255**2 < 2**31
    images = np.full((1, 96, 96, 3), 255, np.uint8)  # nine blocks
    assert (moments_of(images).product_sums == 96 * 96 * 255**2).all()


def test_imagenet_and_a_thousand_times_more_fit_in_64_bits() -> None:
    white = 256 * 256 * 255**2  # what a picture adds to a product sum
    assert 1_281_167 * 1000 * white < 2**63
    largest = Moments(1, np.full((1, 1, 3), white), np.full((3, 3), 2**62 - 1))
    assert (largest + largest).product_sums[0, 0] == 2**63 - 2  # as Python counts


@given(cuts=st.lists(st.integers(0, 12), max_size=4), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_parts_in_any_order_and_grouping_add_up_to_the_whole(cuts: list[int], seed: int) -> None:
    images = noise_images(12, 7, seed)
    parts = [moments_of(part) for part in np.split(images, sorted(cuts))]
    random.Random(seed).shuffle(parts)
    left = zero_moments(7)
    for part in parts:
        left = left + part
    right = zero_moments(7)
    for part in parts:
        right = part + right
    assert equal(left, moments_of(images))
    assert equal(right, left)


@given(seeds=st.lists(st.integers(0, 99), min_size=3, max_size=3))
@settings(max_examples=30)
def test_merging_is_associative_and_order_free(seeds: list[int]) -> None:
    a, b, c = (moments_of(noise_images(1 + seed % 6, 4, seed)) for seed in seeds)
    assert equal((a + b) + c, a + (b + c))
    assert equal(a + b, b + a)
    assert equal(a + zero_moments(4), a)


def test_a_group_is_of_bounded_memory() -> None:
    assert moments.group_size(1) == moments.group_size(256) == moments.GROUP == 32
    assert moments.group_size(500) == 8
    assert moments.group_size(4096) == moments.FEW == 4
    for side in range(1, 800):
        assert moments.group_size(side) % 4 == 0


def test_pictures_are_put_one_by_one_in_few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "GROUP", 8)
    images = noise_images(11, 6)
    slots = set()

    def fill(number: int, slot: npt.NDArray[np.uint8]) -> None:
        assert slot.shape == (6, 6, 3)
        assert slot.flags.c_contiguous
        slots.add(slot.ctypes.data)
        slot[:] = images[number]

    assert equal(moments.sum_pictures(11, 6, fill), plain(images))
    assert len(slots) == 8


def test_a_view_is_summed_as_its_copy() -> None:
    images = noise_images(4, 9)[::2, :, ::-1]
    assert equal(moments_of(images), plain(images))
