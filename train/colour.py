"""The principal axes that colour noise runs along: of the training set, or of each image.

Of the training set (paper, section 4.1): eigenvectors of the RGB covariance, each times its
standard deviation (the authors' code, convdata.py, ColorNoiseMakerThread) or its eigenvalue (the
printed formula). Of each image (a write-up's way): the covariance of that image's own stored
pixels, axes times standard deviations.

Sums over an image are of integers, the rest is in 64 bits: the CPU's way and the tensors' have one
arithmetic, so they agree to the last bits. Eigenvectors have the sign that prep's statistics have:
the component of largest magnitude is positive.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from numba.extending import register_jitable

from prep.handover import Statistics

SWEEPS = 6  # of Jacobi's rotations; five leave nothing above 1e-16 of a 3x3 matrix
TINY = 1e-30  # keeps 0 / 0 out of the rotation of a matrix that is diagonal already


def noise_axes(
    statistics: Statistics, kind: Literal["standard-deviations", "eigenvalues"]
) -> npt.NDArray[np.float32]:
    """[3,3], column i is principal axis i times its scale, in grey levels for an alpha of 1."""
    scales = {
        "standard-deviations": statistics.standard_deviations,
        "eigenvalues": statistics.eigenvalues,
    }[kind]
    return (statistics.eigenvectors * scales).astype(np.float32)


# --------------------------------------------------------------------------- of one matrix


@register_jitable
def _rotate(a: Any, b: Any, ab: Any, ac: Any, bc: Any, va: Any, vb: Any) -> Any:
    """One Jacobi rotation, which makes `ab` zero (Golub and Van Loan, section 8.5)."""
    difference, twice = b - a, 2.0 * ab
    sign = 1.0 - 2.0 * (difference < 0.0)
    tangent = sign * twice / (abs(difference) + (difference**2 + twice**2) ** 0.5 + TINY)
    cosine = (1.0 + tangent**2) ** -0.5
    sine = tangent * cosine
    return (
        a - tangent * ab,
        b + tangent * ab,
        cosine * ac - sine * bc,
        sine * ac + cosine * bc,
        cosine * va - sine * vb,
        sine * va + cosine * vb,
    )


@register_jitable
def _falling(a: Any, b: Any, va: Any, vb: Any) -> Any:
    """The larger of two values and its vector first."""
    stay, swap = a >= b, a < b
    return a * stay + b * swap, b * stay + a * swap, va * stay + vb * swap, vb * stay + va * swap


@register_jitable
def _deviation_axis(value: Any, v: Any) -> Any:
    """The vector with its sign fixed, times the standard deviation."""
    x, y, z = abs(v[0]), abs(v[1]), abs(v[2])
    largest = (
        v[0] * ((x >= y) & (x >= z)) + v[1] * ((y > x) & (y >= z)) + v[2] * ((z > x) & (z > y))
    )
    sign = 1.0 - 2.0 * (largest < 0.0)
    return v * (sign * (value * (value > 0.0)) ** 0.5)


@register_jitable
def deviation_axes(covariance: Any, identity: Any) -> Any:
    """Three principal axes times their standard deviations, falling, by Jacobi's method.

    covariance: rr, gg, bb, rg, rb, gb; numbers, or tensors [B]. identity: [3,3], or a tensor
    [3,3,1]. Each axis is an array [3], or a tensor [3,B]. Neither branches nor calls a library,
    so that numba, NumPy and torch.compile all take it.
    """
    a, b, c, ab, ac, bc = covariance
    va, vb, vc = identity[0], identity[1], identity[2]
    for _ in range(SWEEPS):
        a, b, ac, bc, va, vb = _rotate(a, b, ab, ac, bc, va, vb)
        a, c, ab, bc, va, vc = _rotate(a, c, ac, 0.0, bc, va, vc)  # ab is zero now
        b, c, ab, ac, vb, vc = _rotate(b, c, bc, ab, 0.0, vb, vc)  # ac is
        bc = 0.0
    a, b, va, vb = _falling(a, b, va, vb)
    b, c, vb, vc = _falling(b, c, vb, vc)
    a, b, va, vb = _falling(a, b, va, vb)
    return _deviation_axis(a, va), _deviation_axis(b, vb), _deviation_axis(c, vc)


# --------------------------------------------------------------------------- of images


@register_jitable
def _scatter(pixels: Any, sums: Any, products: Any) -> Any:
    """The covariance times pixels^2: rr, gg, bb, rg, rb, gb of integer sums, exactly.

    Below 2^53 for sides up to 512, so still exact in 64-bit floats.
    """
    (r, g, b), (rr, gg, bb, rg, rb, gb) = sums, products
    return (
        pixels * rr - r * r,
        pixels * gg - g * g,
        pixels * bb - b * b,
        pixels * rg - r * g,
        pixels * rb - r * b,
        pixels * gb - g * b,
    )


@njit(nogil=True, cache=True)
def image_axes(image_SSC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """noise_axes of one image's own pixels: uint8 [S,S,3] to float64 [3,3], axes in columns."""
    pixels = image_SSC.shape[0] * image_SSC.shape[1]
    values = image_SSC.reshape(-1)
    r = g = b = rr = gg = bb = rg = rb = gb = np.int64(0)
    for pixel in range(np.uintp(pixels)):
        place = np.uintp(3) * pixel
        red = np.int64(values[place])
        green = np.int64(values[place + np.uintp(1)])
        blue = np.int64(values[place + np.uintp(2)])
        r += red
        g += green
        b += blue
        rr += red * red
        gg += green * green
        bb += blue * blue
        rg += red * green
        rb += red * blue
        gb += green * blue
    srr, sgg, sbb, srg, srb, sgb = _scatter(pixels, (r, g, b), (rr, gg, bb, rg, rb, gb))
    scatter = (float(srr), float(sgg), float(sbb), float(srg), float(srb), float(sgb))
    columns = deviation_axes(scatter, np.eye(3))
    axes_33 = np.empty((3, 3))
    for i in range(3):
        axes_33[:, i] = columns[i] / pixels
    return axes_33


def image_axes_torch(images_BSSC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """noise_axes of each image's own pixels: uint8 [B,S,S,3] to three axes, real [3,B] each."""
    pixels = images_BSSC.shape[1] * images_BSSC.shape[2]
    r, g, b = images_BSSC.flatten(1, 2).to(torch.int32).unbind(2)
    sums = [channel.sum(1, dtype=torch.int64) for channel in (r, g, b)]
    pairs = ((r, r), (g, g), (b, b), (r, g), (r, b), (g, b))
    products = [(one * other).sum(1, dtype=torch.int64) for one, other in pairs]
    real = real_dtype(images_BSSC.device)
    identity = torch.eye(3, dtype=real, device=images_BSSC.device)[:, :, None]
    scatter = [value.to(real) for value in _scatter(pixels, sums, products)]
    first, second, third = deviation_axes(scatter, identity)
    return first / pixels, second / pixels, third / pixels


def real_dtype(device: torch.device) -> torch.dtype:
    """What the few numbers of each image are reckoned in; Apple's GPUs have no 64-bit floats."""
    return torch.float32 if device.type == "mps" else torch.float64
