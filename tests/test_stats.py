"""Mean image and principal axes: of the trainer's pixels, exact, the same for any workers."""

from __future__ import annotations

import io
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import noise_images, small_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from prep import images, stats
from prep.handover import read_card, read_statistics
from prep.manifest import load
from prep.moments import Moments, moments_of
from prep.place import Place
from prep.prepared import open_prepared
from prep.program import UserError
from prep.stats_source import read_prepared
from prep.tables import statistics_table


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


@pytest.mark.parametrize("unit_size", [1, 5, 18])
def test_two_workers_and_any_units_give_the_bytes_of_one(
    copy: Path, monkeypatch: pytest.MonkeyPatch, unit_size: int
) -> None:
    before = (copy / "train.stats.npz").read_bytes()
    (copy / "train.stats.npz").unlink()
    monkeypatch.setattr(stats, "UNIT_SIZE", unit_size)
    samples, statistics, resumed = stats.measure(copy / "train", jobs=2)
    assert (len(samples), statistics.count, resumed) == (18, 18, 0)
    assert samples.output == copy / "train.stats.npz"
    assert samples.output.read_bytes() == before


def test_the_order_of_completion_does_not_matter(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "train.stats.npz").read_bytes()
    (copy / "train.stats.npz").unlink()
    monkeypatch.setattr(stats, "UNIT_SIZE", 5)

    def backwards(function: object, units: object, _: int) -> object:
        return map(function, reversed(list(units)))  # type: ignore[call-overload]

    monkeypatch.setattr(stats, "run_units", backwards)
    stats.measure(copy / "train", jobs=1)
    assert (copy / "train.stats.npz").read_bytes() == before


# --------------------------------------------------------------------------- exact sums


@given(seed=st.integers(0, 999), count=st.integers(1, 5), side=st.integers(1, 6))
@settings(max_examples=40)
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


def test_sums_near_the_end_of_64_bits_are_divided_exactly() -> None:
    from fractions import Fraction

    count, side = 2**30, 256  # 800 times ImageNet, in all but one value white
    sums = np.full((side, side, 3), 255 * count, np.int64)
    sums[0, 0, 0] -= 1
    products = np.full((3, 3), 255**2 * side**2 * count, np.int64)
    products[0] -= 255
    products[:, 0] -= 255
    products[0, 0] += 1  # 254**2 is 255**2 - 2 * 255 + 1
    measured = stats.statistics_of(Moments(count, sums, products), "id")
    pixels = count * side**2
    variance = Fraction(int(products[0, 0]), pixels) - Fraction(255 * pixels - 1, pixels) ** 2
    assert measured.covariance[0, 0] == float(variance) > 0
    assert measured.covariance[1, 2] == 0


# --------------------------------------------------------------------------- what is shown


def test_what_the_authors_measured_is_shown_beside_it_and_turned_the_same_way(
    prepared_set: Path,
) -> None:
    statistics = read_statistics(prepared_set / "train.stats.npz")
    (authors,) = load("imagenet-1k").statistics
    turned = (
        -np.array(authors.axes[1])
        if statistics.eigenvectors[:, 1] @ authors.axes[1] < 0
        else (np.array(authors.axes[1]))
    )
    out = io.StringIO()
    Console(file=out, width=120).print(statistics_table(statistics, [authors]))
    shown = out.getvalue()
    assert "AlexNet's authors: akrizhevsky/cuda-convnet2, input_meta" in shown
    lines = [line for line in shown.splitlines() if "AlexNet's authors │" in line]
    assert re.findall(r"[\d.]+", lines[0]) == ["127.305", "119.715", "104.913"]
    assert re.findall(r"[-+.\d]+", lines[2]) == [*(f"{v:+.4f}" for v in turned), "37.094"]
    out = io.StringIO()
    Console(file=out, width=120).print(statistics_table(statistics))
    assert "authors" not in out.getvalue()


# --------------------------------------------------------------------------- refusals


def test_validation_is_refused(prepared_set: Path) -> None:
    with pytest.raises(UserError, match=r"val is the val split; .*only: give OUT/train"):
        stats.measure(prepared_set / "val", jobs=1)
    assert not (prepared_set / "val.stats.npz").exists()


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    from prep import plan, resize
    from prep.sources import find_source

    for split in ("train", "val"):
        (tmp_path / "src" / split / "a").mkdir(parents=True)
    (tmp_path / "src" / "train" / "a" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "src" / "val" / "a" / "good.jpg").write_bytes(small_jpeg(0))
    options = plan.Options(jobs=1, max_rejects=1.0)
    resize.resize(find_source(tmp_path / "src"), tmp_path / "out", options)
    with pytest.raises(UserError, match=r"train holds no samples; see rejects\.jsonl"):
        stats.measure(tmp_path / "out" / "train", jobs=1)


def test_what_is_no_prepared_split_is_refused(source: Path) -> None:
    with pytest.raises(UserError, match=r"train\.json is missing"):
        stats.measure(source / "train", jobs=1)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_in_the_place_of_the_statistics_is_refused_before_any_work(
    copy: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = copy / "train.stats.npz"
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    monkeypatch.setattr(stats, "run_units", lambda *_: pytest.fail("work was done"))
    with pytest.raises(UserError, match=rf"cannot write {path}: it is a {kind}; remove it, or gi"):
        stats.measure(copy / "train", jobs=1)
    assert not list(copy.glob("train.stats.npz.*"))


def one_file(copy: Path) -> Path:
    return open_prepared(copy / "train").places(7, 8)[0].path


def test_a_missing_file_is_named(copy: Path) -> None:
    one_file(copy).unlink()
    with pytest.raises(UserError, match=rf"{one_file(copy).name} cannot be read: No such file"):
        stats.measure(copy / "train", jobs=1)


def test_a_changed_file_is_named(copy: Path) -> None:
    data = bytearray(one_file(copy).read_bytes())
    data[len(data) // 2] ^= 1
    one_file(copy).write_bytes(data)
    with pytest.raises(UserError, match=rf"{one_file(copy).name} has changed since"):
        stats.measure(copy / "train", jobs=1)


def place_of(path: Path) -> Place:
    return Place(path.parent, path.name, 0, None, zlib.crc32(path.read_bytes()))


@pytest.mark.parametrize(
    ("side", "said"),
    [(64, r"has shape \(64, 64, 3\), its card says 256x256x3"), (300, "too small")],
)
def test_a_file_of_another_size_is_named(copy: Path, side: int, said: str) -> None:
    path = one_file(copy)
    path.write_bytes(images.encode_jpeg(noise_images(1, side)[0], 95))
    with pytest.raises(
        UserError, match=rf"{path.name} .*{said}.*; remove this prepared set and run"
    ):
        read_prepared(place_of(path), np.empty((256, 256, 3), np.uint8))


def test_a_file_that_was_bad_from_the_start_is_named(copy: Path) -> None:
    one_file(copy).write_bytes(b"no jpeg")
    with pytest.raises(UserError, match=rf"{one_file(copy).name} cannot be decoded"):
        read_prepared(place_of(one_file(copy)), np.empty((256, 256, 3), np.uint8))
