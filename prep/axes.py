"""The principal axes of RGB: eigenvectors of a 3x3 covariance, the same bits on every machine.

LAPACK, which NumPy calls, takes other steps on other processors, and ends with other last bits.
This is Jacobi's method (Golub and Van Loan, Matrix Computations, section 8.5), in Python's floats:
every one of its steps is rounded as IEEE 754 says.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

SWEEPS = 12  # each squares what is left beside the diagonal: further ones change nothing


def principal_axes(
    covariance: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Eigenvalues [3], falling, and eigenvectors [3,3] in columns, of a symmetric [3,3].

    The sign of an axis is free: its component of largest magnitude is made positive.
    """
    matrix: list[list[float]] = covariance.tolist()
    axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]  # in rows
    for _ in range(SWEEPS):
        for first, second in ((0, 1), (0, 2), (1, 2)):
            _turn(matrix, axes, first, second)
    order = sorted(range(3), key=lambda axis: -matrix[axis][axis])
    columns = [_signed(axes[axis]) for axis in order]
    values = np.array([matrix[axis][axis] for axis in order])
    return values, np.array(columns).T.copy()


def _turn(matrix: list[list[float]], axes: list[list[float]], first: int, second: int) -> None:
    """Turn two axes in their plane until their covariance is zero."""
    mixed = matrix[first][second]
    if mixed == 0:
        return
    # The smaller of the two angles: tan t of cot 2t.
    cot = (matrix[second][second] - matrix[first][first]) / (2 * mixed)
    tan = math.copysign(1, cot) / (abs(cot) + math.sqrt(cot * cot + 1))
    cos = 1 / math.sqrt(tan * tan + 1)
    sin = tan * cos
    matrix[first][first] -= tan * mixed
    matrix[second][second] += tan * mixed
    matrix[first][second] = matrix[second][first] = 0.0
    third = 3 - first - second
    a, b = matrix[first][third], matrix[second][third]
    matrix[first][third] = matrix[third][first] = cos * a - sin * b
    matrix[second][third] = matrix[third][second] = sin * a + cos * b
    for place in range(3):
        a, b = axes[first][place], axes[second][place]
        axes[first][place], axes[second][place] = cos * a - sin * b, sin * a + cos * b


def _signed(axis: list[float]) -> list[float]:
    return axis if max(axis, key=abs) > 0 else [-part for part in axis]
