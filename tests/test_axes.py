"""Principal axes: orthonormal, falling, LAPACK's to rounding, and the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep import axes
from prep.axes import principal_axes

COVARIANCE = np.array(
    [[4800.5, 4500.2, 4100.1], [4500.2, 4700.9, 4400.3], [4100.1, 4400.3, 5100.7]]
)
VALUES = "0x1.a6f8fa80001bap+13 0x1.b8ba9fd23eb88p+9 0x1.730a13ea31688p+7"
VECTORS = (
    "0x1.248c1e50b4b28p-1 -0x1.36ebd423360dfp-1 -0x1.1aa50ed9073d5p-1 "
    "0x1.290d83ace4fbdp-1 -0x1.6a3268c98b457p-3 0x1.97117223a94b9p-1 "
    "0x1.292fb1245e8dap-1 0x1.8c938ef62ebf1p-1 -0x1.014e1384776b6p-2"
)


def test_every_machine_has_these_bits() -> None:
    values, vectors = principal_axes(COVARIANCE)
    assert " ".join(value.hex() for value in values.tolist()) == VALUES
    assert " ".join(part.hex() for part in vectors.ravel().tolist()) == VECTORS


def test_further_sweeps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = np.random.default_rng(0).normal(size=(200, 3, 3)) * np.array([[1.0], [30.0], [900.0]])
    found = [principal_axes(root @ root.T) for root in roots]
    monkeypatch.setattr(axes, "SWEEPS", 2 * axes.SWEEPS)
    for root, (values, vectors) in zip(roots, found, strict=True):
        again = principal_axes(root @ root.T)
        assert np.array_equal(values, again[0])
        assert np.array_equal(vectors, again[1])


def test_they_are_lapack_s_to_rounding() -> None:
    expected, columns = np.linalg.eigh(COVARIANCE)
    values, vectors = principal_axes(COVARIANCE)
    # Neither is exact to more than a rounding of the largest.
    np.testing.assert_allclose(values, expected[::-1], rtol=0, atol=1e-14 * expected[-1])
    np.testing.assert_allclose(np.abs(vectors.T @ columns[:, ::-1]), np.eye(3), atol=1e-13)


@given(
    seed=st.integers(0, 9999), rank=st.integers(0, 3), scale=st.sampled_from([1e-6, 1.0, 4000.0])
)
@settings(max_examples=80)
def test_the_axes_are_orthonormal_fall_and_give_the_covariance_back(
    seed: int, rank: int, scale: float
) -> None:
    root = np.random.default_rng(seed).normal(size=(3, 3))
    root[:, rank:] = 0  # grey pictures have rank 1, those of one colour 0
    covariance = scale * root @ root.T
    values, vectors = principal_axes(covariance)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(vectors * values @ vectors.T, covariance, atol=1e-10 * scale)
    for axis in vectors.T:
        assert axis[np.argmax(np.abs(axis))] > 0


def test_the_axes_of_one_colour_are_the_unit_ones() -> None:
    values, vectors = principal_axes(np.zeros((3, 3)))
    assert (values == 0).all()
    assert np.array_equal(np.sort(vectors, axis=0), np.sort(np.eye(3), axis=0))
