"""Mean image and principal axes: of the trainer's pixels, exact, the same for any workers."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import noise_images
from hypothesis import given, settings
from hypothesis import strategies as st

from prep import images, stats
from prep.handover import read_card, read_statistics
from prep.moments import moments_of
from prep.prepared import Place, open_prepared
from prep.program import UserError


@pytest.fixture
def copy(prepared_set: Path, tmp_path: Path) -> Path:
    """A prepared set that a test may change."""
    return Path(shutil.copytree(prepared_set, tmp_path / "out"))


@pytest.fixture(scope="module")
def pixels(prepared_set: Path) -> npt.NDArray[np.float64]:
    """[N,S,S,3], every pixel of the training split as the loader will give it."""
    files = sorted((prepared_set / "train").rglob("*.JPEG"))
    return np.array([images.decode_as_ffcv(path.read_bytes()) for path in files], np.float64)


def test_the_mean_image_is_numpy_s(prepared_set: Path, pixels: npt.NDArray[np.float64]) -> None:
    measured = read_statistics(prepared_set / "train.stats.npz")
    assert measured.count == len(pixels) == 18
    assert measured.mean_image.dtype == np.float32
    assert np.array_equal(measured.mean_image, pixels.mean(axis=0).astype(np.float32))


def test_channel_means_and_covariance_are_numpy_s(
    prepared_set: Path, pixels: npt.NDArray[np.float64]
) -> None:
    measured = read_statistics(prepared_set / "train.stats.npz")
    flat = pixels.reshape(-1, 3)
    np.testing.assert_allclose(measured.channel_mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(measured.covariance, np.cov(flat.T, bias=True), rtol=1e-9)


def test_the_pixels_are_the_fast_decoder_s_and_not_pillow_s(prepared_set: Path) -> None:
    from PIL import Image

    measured = read_statistics(prepared_set / "train.stats.npz")
    files = sorted((prepared_set / "train").rglob("*.JPEG"))
    pillow = np.array([np.asarray(Image.open(path)) for path in files], np.float64)
    assert not np.array_equal(measured.mean_image, pillow.mean(axis=0).astype(np.float32))
    assert measured.decoder == images.FFCV_DECODER


def test_they_name_the_split_they_are_of(prepared_set: Path) -> None:
    measured = read_statistics(prepared_set / "train.stats.npz")
    assert measured.pixels_id == read_card(prepared_set / "train.json").pixels_id


def test_two_workers_and_any_units_give_the_bytes_of_one(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "train.stats.npz").read_bytes()
    (copy / "train.stats.npz").unlink()
    monkeypatch.setattr(stats, "UNIT_SIZE", 5)
    stats.write(stats.measure(copy / "train", jobs=2), copy / "train")
    assert (copy / "train.stats.npz").read_bytes() == before


def test_the_order_of_completion_does_not_matter(
    prepared_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "UNIT_SIZE", 5)
    monkeypatch.setattr(stats, "BATCH", 2)

    def backwards(function: object, units: object, _: int) -> object:
        return map(function, reversed(list(units)))  # type: ignore[call-overload]

    monkeypatch.setattr(stats, "run_units", backwards)
    path = stats.write(stats.measure(prepared_set / "train", jobs=1), tmp_path / "train")
    assert path.read_bytes() == (prepared_set / "train.stats.npz").read_bytes()


# --------------------------------------------------------------------------- principal axes


@given(seed=st.integers(0, 9999), scale=st.sampled_from([1e-6, 1.0, 4000.0]))
@settings(max_examples=60, deadline=None)
def test_the_axes_are_orthonormal_fall_and_give_the_covariance_back(
    seed: int, scale: float
) -> None:
    root = np.random.default_rng(seed).normal(size=(3, 3))
    covariance = scale * root @ root.T
    values, vectors = stats.principal_axes(covariance)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(vectors * values @ vectors.T, covariance, atol=1e-10 * scale)
    for axis in vectors.T:
        assert axis[np.argmax(np.abs(axis))] > 0


def test_the_axes_of_one_colour_are_the_unit_ones() -> None:
    values, vectors = stats.principal_axes(np.zeros((3, 3)))
    assert (values == 0).all()
    assert np.array_equal(np.sort(vectors, axis=0), np.sort(np.eye(3), axis=0))


@given(seed=st.integers(0, 999), count=st.integers(1, 5), side=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_one_division_of_exact_sums(seed: int, count: int, side: int) -> None:
    from fractions import Fraction

    pictures = noise_images(count, side, seed)
    measured = stats.statistics_of(moments_of(pictures), "id")
    columns = [[int(v) for v in pictures[..., c].ravel()] for c in range(3)]
    pixels = count * side * side
    for a in range(3):
        assert measured.channel_mean[a] == float(Fraction(sum(columns[a]), pixels))
        for b in range(3):
            products = sum(x * y for x, y in zip(columns[a], columns[b], strict=True))
            exact = Fraction(products, pixels) - Fraction(
                sum(columns[a]) * sum(columns[b]), pixels**2
            )
            assert measured.covariance[a, b] == float(exact)


# --------------------------------------------------------------------------- refusals


def test_validation_is_refused(prepared_set: Path) -> None:
    with pytest.raises(UserError, match=r"val is the val split; .*only: give OUT/train"):
        stats.measure(prepared_set / "val", jobs=1)
    assert not (prepared_set / "val.stats.npz").exists()


def test_what_is_no_prepared_split_is_refused(source: Path) -> None:
    with pytest.raises(UserError, match=r"train\.json is missing"):
        stats.measure(source / "train", jobs=1)


def one_file(copy: Path) -> Path:
    return open_prepared(copy / "train").places(7, 8)[0].path


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_vanished_file_is_named(copy: Path, jobs: int) -> None:
    one_file(copy).unlink()
    with pytest.raises(UserError, match=rf"{one_file(copy).name} cannot be read: No such file"):
        stats.measure(copy / "train", jobs)


def test_a_changed_file_is_named(copy: Path) -> None:
    data = bytearray(one_file(copy).read_bytes())
    data[len(data) // 2] ^= 1
    one_file(copy).write_bytes(data)
    with pytest.raises(UserError, match=rf"{one_file(copy).name} has changed since"):
        stats.measure(copy / "train", jobs=1)


def test_a_file_of_another_size_is_named(copy: Path) -> None:
    data = images.encode_jpeg(noise_images(1, 64)[0], 95)
    one_file(copy).write_bytes(data)
    with pytest.raises(UserError, match=r"has shape \(64, 64, 3\), its card says 256x256x3"):
        stats.read_sample(Place(one_file(copy), 0, None, zlib.crc32(data)), 256)


def test_a_file_that_was_bad_from_the_start_is_named(copy: Path) -> None:
    one_file(copy).write_bytes(b"no jpeg")
    with pytest.raises(UserError, match=rf"{one_file(copy).name} cannot be decoded"):
        stats.read_sample(Place(one_file(copy), 0, None, zlib.crc32(b"no jpeg")), 256)


def test_a_full_disk_leaves_the_old_statistics(prepared_set: Path, small_disk: Path) -> None:
    measured = read_statistics(prepared_set / "train.stats.npz")
    (small_disk / "train.stats.npz").write_bytes(b"old")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(OSError, match="No space left on device") as caught:
        stats.write(measured, small_disk / "train")
    assert caught.value.filename == str(small_disk / "train.stats.npz")
    assert sorted(os.listdir(small_disk)) == ["filler", "train.stats.npz"]  # noqa: PTH208
    assert (small_disk / "train.stats.npz").read_bytes() == b"old"
