"""Exact sums over pictures: integers that are merged in any order.

For pictures of 8-bit RGB: the sum of every pixel position, the sum of every channel, and the sum
of every product of two channels. All are int64: at 256x256 a picture adds at most 65536 * 255**2
= 4.3e9 to a product sum, so that 2.1e9 pictures fit before 2**63; ImageNet has 1.3 million.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import numpy.typing as npt

BLOCK = 512  # pixels: their nine sums are 18 KB, which stay in the first-level cache
MAX_BATCH = 65536  # pictures: 65536 * 255**2 is below 2**32


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


def moments_of(images_BSSC: npt.NDArray[np.uint8]) -> Moments:
    """The sums over uint8 [B,S,S,3]. Raises ValueError above MAX_BATCH pictures."""
    count, side = images_BSSC.shape[:2]
    if count > MAX_BATCH:
        raise ValueError(f"{count} pictures at once, at most {MAX_BATCH} have exact sums")
    pixel_sums = np.zeros((side * side, 3), np.int64)
    products = np.zeros(6, np.int64)
    _accumulate(images_BSSC.reshape(count, side * side, 3), pixel_sums, products)
    rr, gg, bb, rg, rb, gb = products
    product_sums = np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]], np.int64)
    return Moments(count, pixel_sums.reshape(side, side, 3), product_sums)


@numba.njit(cache=True, nogil=True)
def _accumulate(
    images_BPC: npt.NDArray[np.uint8],
    pixel_sums_PC: npt.NDArray[np.int64],
    products: npt.NDArray[np.int64],
) -> None:
    """Add uint8 [B,P,3] to int64 [P,3] and to the products rr, gg, bb, rg, rb, gb.

    Block by block: nine uint32 sums a pixel over the whole batch, which the compiler turns into
    vector instructions. B * 255**2 has to stay below 2**32.
    """
    count, pixels, _ = images_BPC.shape
    sums = np.empty((9, BLOCK), np.uint32)
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        sums[:] = 0
        r, g, b, rr, gg, bb, rg, rb, gb = sums
        for image in range(count):
            values = images_BPC[image, start : start + size].reshape(size * 3)
            for p in range(size):
                red = np.uint32(values[3 * p])
                green = np.uint32(values[3 * p + 1])
                blue = np.uint32(values[3 * p + 2])
                r[p] += red
                g[p] += green
                b[p] += blue
                rr[p] += np.uint32(red * red)
                gg[p] += np.uint32(green * green)
                bb[p] += np.uint32(blue * blue)
                rg[p] += np.uint32(red * green)
                rb[p] += np.uint32(red * blue)
                gb[p] += np.uint32(green * blue)
        for p in range(size):
            for channel in range(3):
                pixel_sums_PC[start + p, channel] += sums[channel, p]
        for kind in range(6):
            total = np.int64(0)
            for p in range(size):
                total += sums[3 + kind, p]
            products[kind] += total
