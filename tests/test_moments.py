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


@given(count=st.integers(0, 9), side=st.integers(1, 40), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_the_sums_are_exact(count: int, side: int, seed: int) -> None:
    images = noise_images(count, side, seed)
    got = moments_of(images)
    assert equal(got, plain(images))
    assert got.pixel_sums.dtype == got.product_sums.dtype == np.int64


def test_the_sums_equal_python_s_integers() -> None:
    images = noise_images(3, 5)
    got = moments_of(images)
    pixels = [[int(value) for value in pixel] for pixel in images.reshape(-1, 3)]
    for a in range(3):
        for b in range(3):
            assert got.product_sums[a, b] == sum(pixel[a] * pixel[b] for pixel in pixels)
    assert got.pixel_sums[2, 4, 1] == sum(int(image[2, 4, 1]) for image in images)


def test_the_interpreted_kernel_equals_the_compiled_one() -> None:
    images = noise_images(2, 24)  # 576 pixels: one block and a part of one
    pixel_sums, products = np.zeros((576, 3), np.int64), np.zeros(6, np.int64)
    moments._accumulate.py_func(images.reshape(2, 576, 3), pixel_sums, products)
    compiled = moments_of(images)
    assert np.array_equal(pixel_sums.reshape(24, 24, 3), compiled.pixel_sums)
    rows, columns = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
    assert np.array_equal(products, compiled.product_sums[rows, columns])


def test_the_largest_batch_of_the_brightest_pictures_does_not_overflow() -> None:
    images = np.full((moments.MAX_BATCH, 1, 1, 3), 255, np.uint8)
    got = moments_of(images)
    assert (got.pixel_sums == 65536 * 255).all()
    assert (got.product_sums == 65536 * 255**2).all()


def test_a_larger_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="65537 pictures at once, at most 65536"):
        moments_of(np.zeros((moments.MAX_BATCH + 1, 1, 1, 3), np.uint8))


@given(cuts=st.lists(st.integers(0, 12), max_size=4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
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


def test_a_view_is_summed_as_its_copy() -> None:
    images = noise_images(4, 9)[::2, :, ::-1]
    assert equal(moments_of(images), plain(images))
