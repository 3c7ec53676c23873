"""Exact sums over pictures: integers that are merged in any order.

For pictures of 8-bit RGB: the sum of every pixel position, and the sum of every product of two
channels. Nothing overflows: a pixel position is summed in 16 bits over at most 257 pictures (257 *
255 = 65535), a product in 31 bits over at most 33025 pixels (33025 * 255**2 < 2**31; BLOCK has
fewer), all else in int64. At 256x256 a picture adds at most 65536 * 255**2 = 4.3e9 to a product
sum, so that 2.1e9 pictures fit before 2**63; ImageNet has 1.3 million. At 4096x4096, the largest
side that `prep resize` makes, 8.4 million fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

GROUP = 32  # pictures that are decoded, then summed; the decoder is slower for a while after it:
# dense multiplications lower the clock of many processors, for 0.7 ms on a Xeon
GROUP_BYTES = 8 << 20  # of a group, where pictures are large; the third-level cache holds them
FEW = 4  # pictures whose bytes are summed in one go; a group has a multiple of them
FULL = 256  # pictures of 255 everywhere that 16 bits can sum
BLOCK = 1024  # pixels: those of a few pictures, with their sums, stay in the first-level cache


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums over `count` pictures of side S."""

    count: int
    pixel_sums: npt.NDArray[np.int64]  # [S,S,3]
    product_sums: npt.NDArray[np.int64]  # [3,3], over every pixel of every picture

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.pixel_sums + other.pixel_sums,
            self.product_sums + other.product_sums,
        )


def zero_moments(side: int) -> Moments:
    return Moments(0, np.zeros((side, side, 3), np.int64), np.zeros((3, 3), np.int64))


def moments_of(images_BSSC: Pixels) -> Moments:
    """The sums over uint8 [B,S,S,3]."""

    def copy(number: int, slot: Pixels) -> None:
        slot[:] = images_BSSC[number]

    return sum_pictures(len(images_BSSC), images_BSSC.shape[1], copy)


def sum_pictures(count: int, side: int, fill: Callable[[int, Pixels], None]) -> Moments:
    """The sums over `count` pictures; fill(i, slot) puts the pixels of picture i in `slot`.

    Slots are contiguous uint8 [side,side,3], the same few for all pictures. Raises what `fill`
    raises.
    """
    group_GSSC = np.empty((group_size(side), side, side, 3), np.uint8)
    pixel_sums = np.zeros(3 * side * side, np.int64)
    products = np.zeros(6, np.int64)
    for start in range(0, count, FULL):
        stop = min(start + FULL, count)
        sums = np.zeros(len(pixel_sums), np.uint16)
        for first in range(start, stop, len(group_GSSC)):
            pictures = min(len(group_GSSC), stop - first)
            for number in range(pictures):
                fill(first + number, group_GSSC[number])
            used_GSSC = group_GSSC[: -(-pictures // FEW) * FEW]
            used_GSSC[pictures:] = 0  # adds nothing
            accumulate(used_GSSC.reshape(len(used_GSSC), -1), sums, products)
        pixel_sums += sums
    rr, gg, bb, rg, rb, gb = products
    product_sums = np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]], np.int64)
    return Moments(count, pixel_sums.reshape(side, side, 3), product_sums)


def group_size(side: int) -> int:
    """Pictures in a group: GROUP, or as many as GROUP_BYTES hold, or FEW."""
    return min(max(GROUP_BYTES // (3 * side**2) // FEW * FEW, FEW), GROUP)


@numba.njit(cache=True, nogil=True)
def accumulate(
    group: Pixels, sums: npt.NDArray[np.uint16], products: npt.NDArray[np.int64]
) -> None:
    """Add uint8 [G,3P] to uint16 [3P] and to the products rr, gg, bb, rg, rb, gb.

    G is a multiple of FEW. Places are unsigned: a negative one would count from the end, and
    looking for it takes longer than the summing.
    """
    red = np.empty(BLOCK, np.uint8)
    green = np.empty(BLOCK, np.uint8)
    blue = np.empty(BLOCK, np.uint8)
    pixels = len(sums) // 3
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        for first in range(0, len(group), FEW):
            add_few(group, first, 3 * start, 3 * size, sums)
            for picture in range(first, first + FEW):
                split_channels(group, picture, 3 * start, size, red, green, blue)
                add_products(red, green, blue, size, products)


@numba.njit(cache=True, nogil=True)
def add_few(group: Pixels, first: int, start: int, size: int, sums: npt.NDArray[np.uint16]) -> None:
    """Add `size` bytes of four pictures, from byte `start` on, in 16 bits."""
    a, b = np.uint64(first), np.uint64(first + 1)
    c, d = np.uint64(first + 2), np.uint64(first + 3)
    for i in range(np.uint64(size)):
        place = np.uint64(start) + i
        left = np.uint16(np.uint16(group[a, place]) + np.uint16(group[b, place]))
        right = np.uint16(np.uint16(group[c, place]) + np.uint16(group[d, place]))
        sums[place] = np.uint16(sums[place] + np.uint16(left + right))


@numba.njit(cache=True, nogil=True)
def split_channels(
    group: Pixels, picture: int, start: int, size: int, red: Pixels, green: Pixels, blue: Pixels
) -> None:
    """`size` pixels of one picture, from byte `start` on, to three arrays."""
    row = np.uint64(picture)
    for i in range(np.uint64(size)):
        place = np.uint64(start) + np.uint64(3) * i
        red[i] = group[row, place]
        green[i] = group[row, place + np.uint64(1)]
        blue[i] = group[row, place + np.uint64(2)]


@numba.njit(cache=True, nogil=True)
def add_products(
    red: Pixels, green: Pixels, blue: Pixels, size: int, products: npt.NDArray[np.int64]
) -> None:
    """Add the sums of the six products over `size` pixels, each of them below 2**31."""
    rr, gg, bb = np.int32(0), np.int32(0), np.int32(0)
    rg, rb, gb = np.int32(0), np.int32(0), np.int32(0)
    for i in range(np.uint64(size)):
        r, g, b = np.int32(red[i]), np.int32(green[i]), np.int32(blue[i])
        rr = np.int32(rr + np.int32(r * r))
        gg = np.int32(gg + np.int32(g * g))
        bb = np.int32(bb + np.int32(b * b))
        rg = np.int32(rg + np.int32(r * g))
        rb = np.int32(rb + np.int32(r * b))
        gb = np.int32(gb + np.int32(g * b))
    products[0] += rr
    products[1] += gg
    products[2] += bb
    products[3] += rg
    products[4] += rb
    products[5] += gb
