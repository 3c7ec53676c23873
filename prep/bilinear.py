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

MAX_SCALE = 50  # weights in 1/UNIT would be too coarse for more than 100 source pixels
UNIT = 1 << 14  # weights are whole numbers that sum to this
GROUP = 4  # source pixels that are mixed in one go
BLOCK_PIXELS = 65536  # of the half-resized picture: 256 KB, which stay in the second-level cache


@functools.lru_cache(maxsize=1024)  # half of ImageNet has one of a few sizes; 5 KB each
def taps(old: int, new: int, first: int, count: int) -> Taps:
    """For `count` pixels of a line resized from `old` to `new`, from pixel `first` on:

    starts int64 [count], the first source pixel of each, and weights uint16 [count,K] in 1/UNIT,
    which sum to 1. K is 3 (375 lines to 256) or a multiple of GROUP; spare weights are zero.
    """
    reach = -(-max(old, new) // new)  # source pixels to each side of an output pixel's centre
    width = -(-(2 * reach + 1) // GROUP) * GROUP
    starts, weights = np.empty(count, np.int64), np.zeros((count, width), np.uint16)
    centre, rest = divmod((2 * first + 1) * old, 2 * new)
    fill_taps(old, new, centre, rest, starts, weights)
    used = int((weights != 0).any(axis=0).nonzero()[0].max()) + 1
    width = 3 if used <= 3 else -(-used // GROUP) * GROUP
    return starts, np.ascontiguousarray(weights[:, :width])


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
        left = UNIT
        for k in range(taps):
            heights[k] = (heights[k] * UNIT + total // 2) // total
            left -= heights[k]
        heights[highest] += left
        starts[i] = start
        weights[i, :taps] = heights[:taps]


def resample(source_HW4: Pixels, rows: Taps, columns: Taps) -> Pixels:
    """uint8 [H,W,4] to [S,S,3], of the taps of both axes; the fourth byte is left out."""
    height, whole_width = source_HW4.shape[:2]
    side = len(rows[0])
    first = int(columns[0][0])  # source columns before it are outside the crop
    width = min(int(columns[0][-1]) + columns[1].shape[1], whole_width) - first
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
    first = column_starts[0]
    width = len(scratch) // (2 * block) - side
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
        starts, weights = row_starts[top : top + count], row_weights[top : top + count]
        mix(source, 4 * first, starts, weights, sums, upright_bytes)
        turn(upright, turned)
        mix(turned_bytes, 0, column_starts - first, column_weights, sums, mixed_bytes)
        turn(mixed, line)
        for y in range(count):
            drop_fourth(line_bytes[y], out[top + y])


@numba.njit(cache=True, nogil=True)
def mix(
    lines: Pixels,
    first: int,
    starts: npt.NDArray[np.int64],
    weights: npt.NDArray[np.uint16],
    sums: npt.NDArray[np.uint16],
    out: Pixels,
) -> None:
    """out[j] = weighted mean of lines[starts[j]:, first:], as many lines as there are weights.

    lines uint8 [A,B], out uint8 [J or more,N], starts [J], weights [J,K]; `sums` has room for N.

    In 16 bits, which are 8 before and 8 after the point: p w / 64 is p (w >> 6) plus
    p (w & 63) >> 6. Four of the latter are summed before they are cut off, on average half a unit
    too low; `half` makes up for that. Places are unsigned: a negative one would count from the end
    of a line, and looking for it takes longer than the mixing.
    """
    taps = weights.shape[1]
    begin, size = np.uint64(first), np.uint64(out.shape[1])
    half = np.uint16(128 + taps // (2 * GROUP))
    black, nothing = np.uint8(0), np.uint16(0)
    for j in range(len(starts)):
        line = np.uint64(j)
        if taps > GROUP:
            for i in range(size):
                sums[i] = half
        for k in range(0, taps, GROUP):
            a, a_high, a_low = tap(lines, starts[j] + k, weights[j, k])
            b, b_high, b_low = tap(lines, starts[j] + k + 1, weights[j, k + 1])
            c, c_high, c_low = tap(lines, starts[j] + k + 2, weights[j, k + 2])
            if taps == 3:
                for i in range(size):
                    p, q, r = lines[a, begin + i], lines[b, begin + i], lines[c, begin + i]
                    high = weigh(p, q, r, black, a_high, b_high, c_high, nothing)
                    low = weigh(p, q, r, black, a_low, b_low, c_low, nothing)
                    out[line, i] = np.uint16(half + high + (low >> 6)) >> 8
                continue
            d, d_high, d_low = tap(lines, starts[j] + k + 3, weights[j, k + 3])
            for i in range(size):
                p, q, r = lines[a, begin + i], lines[b, begin + i], lines[c, begin + i]
                s = lines[d, begin + i]
                high = weigh(p, q, r, s, a_high, b_high, c_high, d_high)
                low = weigh(p, q, r, s, a_low, b_low, c_low, d_low)
                if taps == GROUP:
                    out[line, i] = np.uint16(half + high + (low >> 6)) >> 8
                else:
                    sums[i] = np.uint16(sums[i] + high + (low >> 6))
        if taps > GROUP:
            for i in range(size):
                out[line, i] = sums[i] >> 8


@numba.njit(cache=True, nogil=True)
def weigh(
    p: np.uint8,
    q: np.uint8,
    r: np.uint8,
    s: np.uint8,
    a: np.uint16,
    b: np.uint16,
    c: np.uint16,
    d: np.uint16,
) -> np.uint16:
    """p a + q b + r c + s d in 16 bits."""
    first = np.uint16(np.uint16(p) * a) + np.uint16(np.uint16(q) * b)
    second = np.uint16(np.uint16(r) * c) + np.uint16(np.uint16(s) * d)
    return np.uint16(np.uint16(first) + np.uint16(second))


@numba.njit(cache=True, nogil=True)
def tap(lines: Pixels, place: int, weight: int) -> tuple[np.uint64, np.uint16, np.uint16]:
    """The line to take, the last one again beyond the end, and the weight in two parts."""
    line = np.uint64(min(place, len(lines) - 1))
    return line, np.uint16(weight >> 6), np.uint16(weight & 63)


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
