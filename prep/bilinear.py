"""The resize of backend turbo: Pillow's antialiased bilinear filter, in integers.

Takes uint8 [H,4W] lines of 4-byte pixels and, for both axes, which source pixels each output pixel
mixes and how; gives uint8 [S,3S]. Integers throughout: the same bytes on every machine. Pillow
mixes in other steps (it rounds between the passes as this does, but goes across first), so that the
two differ by up to 2 grey levels.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
import numpy.typing as npt

from prep.scratch import scratch

Pixels = npt.NDArray[np.uint8]
Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]

MAX_SCALE = 50  # 16-bit weights of more than 100 source pixels would be too coarse
GROUP = 3  # source pixels that are mixed in one go: what 375 lines to 256 need
BLOCK_PIXELS = 65536  # of the half-resized picture: 256 KB, which stay in the second-level cache


@functools.lru_cache(maxsize=1024)  # half of ImageNet has one of a few sizes; 5 KB each
def taps(old: int, new: int, first: int, count: int) -> Taps:
    """For `count` pixels of a line resized from `old` to `new`, from pixel `first` on:

    starts int64 [count], the first source pixel of each, and weights uint16 [count,K] in 1/65536,
    which sum to 1 (one alone to 65535/65536). K is a multiple of GROUP; spare weights are zero.
    """
    reach = -(-max(old, new) // new)  # source pixels to each side of an output pixel's centre
    width = -(-(2 * reach + 1) // GROUP) * GROUP
    starts, weights = np.empty(count, np.int64), np.zeros((count, width), np.uint16)
    centre, rest = divmod((2 * first + 1) * old, 2 * new)
    fill_taps(old, new, centre, rest, starts, weights)
    spare = int((weights != 0).any(axis=0).nonzero()[0].max()) + 1
    return starts, np.ascontiguousarray(weights[:, : -(-spare // GROUP) * GROUP])


@numba.njit(cache=True, nogil=True)
def fill_taps(
    old: int,
    new: int,
    centre: int,
    rest: int,
    starts: npt.NDArray[np.int64],
    weights: npt.NDArray[np.uint16],
) -> None:
    """The triangle filter of Pillow's BILINEAR, in integers.

    Output pixel i has its centre at source position c = centre + (rest + 2 i old) / (2 new). Source
    pixel x, of centre x + 1/2, weighs 1 - |x + 1/2 - c| / f, where f is old/new or, to enlarge, 1;
    here times 2 new f.
    """
    reach = 2 * max(old, new)
    heights = np.empty(weights.shape[1], np.int64)
    for i in range(len(starts)):
        position = rest + 2 * i * old
        start = max(centre + (position - reach - new) // (2 * new) + 1, 0)
        total, taps, highest = 0, 0, 0
        for x in range(start, min(start + len(heights), old)):
            height = reach - abs((2 * (x - centre) + 1) * new - position)
            if height <= 0:
                break
            heights[taps] = height
            total += height
            if height > heights[highest]:
                highest = taps
            taps += 1
        left = 65536
        for k in range(taps):
            heights[k] = (heights[k] * 65536 + total // 2) // total
            left -= heights[k]
        heights[highest] += left
        starts[i] = start
        for k in range(taps):
            weights[i, k] = min(heights[k], 65535)


def resample(source_HW4: Pixels, rows: Taps, columns: Taps) -> Pixels:
    """uint8 [H,W,4] to [S,S,3], of the taps of both axes; the fourth byte is left out."""
    height, whole_width = source_HW4.shape[:2]
    side = len(rows[0])
    width = int(min(columns[0][-1] + columns[1].shape[1], whole_width) - columns[0][0])
    block = min(max(BLOCK_PIXELS // width, 16), 128, side)
    memory = scratch("blocks", 8 * block * (width + side)).view(np.uint32)
    out_SSC = np.empty((side, side, 3), np.uint8)
    source = source_HW4.reshape(height, 4 * whole_width)
    resample_blocks(source, *rows, *columns, block, memory, out_SSC.reshape(side, 3 * side))
    return out_SSC


@numba.njit(cache=True, nogil=True)
def resample_blocks(
    source: Pixels,
    row_starts: npt.NDArray[np.int64],
    row_weights: npt.NDArray[np.uint16],
    column_starts: npt.NDArray[np.int64],
    column_weights: npt.NDArray[np.uint16],
    block: int,
    scratch: npt.NDArray[np.uint32],
    out: Pixels,
) -> None:
    """uint8 [H,4W] to [S,3S], vertically and then horizontally, in blocks of output rows.

    Between the two a block is turned on its side, and after them back: both then mix whole lines,
    which the compiler does with vector instructions. A pixel is turned as one 32-bit number.
    `scratch` has 2 `block` (W' + S) of them, where W' is how many source columns are needed.
    """
    side = len(row_starts)
    low = column_starts[0]
    width = len(scratch) // (2 * block) - side
    high = low + width
    ends = np.array([0, width, 2 * width, 2 * width + side, 2 * width + 2 * side]) * block
    upright = scratch[ends[0] : ends[1]].reshape(block, width)  # resized vertically
    turned = scratch[ends[1] : ends[2]].reshape(width, block)
    mixed = scratch[ends[2] : ends[3]].reshape(side, block)  # resized both ways
    line = scratch[ends[3] : ends[4]].reshape(block, side)
    upright_bytes, turned_bytes = upright.view(np.uint8), turned.view(np.uint8)
    mixed_bytes, line_bytes = mixed.view(np.uint8), line.view(np.uint8)
    sums = np.empty(4 * max(width, block), np.uint16)
    for top in range(0, side, block):
        count = min(block, side - top)
        for y in range(count):
            start, weights = row_starts[top + y], row_weights[top + y]
            mix(source, start, 4 * low, 4 * high, weights, sums, upright_bytes[y])
        turn(upright, turned)
        for x in range(side):
            start, weights = column_starts[x] - low, column_weights[x]
            mix(turned_bytes, start, 0, 4 * block, weights, sums, mixed_bytes[x])
        turn(mixed, line)
        for y in range(count):
            drop_fourth(line_bytes[y], out[top + y])


@numba.njit(cache=True, nogil=True)
def mix(
    lines: Pixels,
    start: int,
    low: int,
    high: int,
    weights: npt.NDArray[np.uint16],
    sums: npt.NDArray[np.uint16],
    out: Pixels,
) -> None:
    """Weighted mean of lines[start:, low:high], uint8, as many lines as there are weights.

    In 16 bits, which are 8 before and 8 after the point: p w / 65536 is p (w >> 8) plus
    p (w & 255) >> 8, cut off, on average half a unit too low; `half` makes up for that.
    """
    last = len(lines) - 1
    half = np.uint16(128 + len(weights) // 2)
    sums = sums[: len(out)]
    for k in range(0, len(weights), GROUP):
        a = lines[min(start + k, last), low:high]
        b = lines[min(start + k + 1, last), low:high]
        c = lines[min(start + k + 2, last), low:high]
        a_high, a_low = np.uint16(weights[k] >> 8), np.uint16(weights[k] & 255)
        b_high, b_low = np.uint16(weights[k + 1] >> 8), np.uint16(weights[k + 1] & 255)
        c_high, c_low = np.uint16(weights[k + 2] >> 8), np.uint16(weights[k + 2] & 255)
        if len(weights) == GROUP:
            for i in range(len(out)):
                p, q, r = np.uint16(a[i]), np.uint16(b[i]), np.uint16(c[i])
                above = np.uint16(p * a_high) + np.uint16(q * b_high) + np.uint16(r * c_high)
                below = (
                    (np.uint16(p * a_low) >> 8)
                    + (np.uint16(q * b_low) >> 8)
                    + (np.uint16(r * c_low) >> 8)
                )
                out[i] = np.uint16(half + above + below) >> 8
            return
        if k == 0:
            sums[:] = half
        for i in range(len(out)):
            p, q, r = np.uint16(a[i]), np.uint16(b[i]), np.uint16(c[i])
            above = np.uint16(p * a_high) + np.uint16(q * b_high) + np.uint16(r * c_high)
            below = (
                (np.uint16(p * a_low) >> 8)
                + (np.uint16(q * b_low) >> 8)
                + (np.uint16(r * c_low) >> 8)
            )
            sums[i] = np.uint16(sums[i] + above + below)
    for i in range(len(out)):
        out[i] = sums[i] >> 8


@numba.njit(cache=True, nogil=True)
def turn(lines: npt.NDArray[np.uint32], turned: npt.NDArray[np.uint32]) -> None:
    """[A,B] to [B,A], eight lines at a time: their cache lines stay until they are used up."""
    count, width = lines.shape
    whole = count // 8 * 8
    for y in range(0, whole, 8):
        for x in range(width):
            for k in range(8):
                turned[x, y + k] = lines[y + k, x]
    for y in range(whole, count):
        for x in range(width):
            turned[x, y] = lines[y, x]


@numba.njit(cache=True, nogil=True)
def drop_fourth(line: Pixels, out: Pixels) -> None:
    """uint8 [4S] to [3S]."""
    for x in range(len(out) // 3):
        out[3 * x] = line[4 * x]
        out[3 * x + 1] = line[4 * x + 1]
        out[3 * x + 2] = line[4 * x + 2]
