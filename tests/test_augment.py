"""The training augmentation: against plain NumPy, its distribution, its purity, inside FFCV."""

import numba
import numpy as np
import pytest
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter

from prep.handover import Statistics
from prep.program import UserError
from train.augment import Augment, Augmentation, augment_batch, draw, noise_axes
from train.philox import COLOUR_NOISE, CROP_AND_MIRROR, philox4x32

SIDE, CROP = 64, 53
POSITIONS = SIDE - CROP + 1
SEED = 20120930 << 20  # more than 32 bits


@pytest.fixture(scope="module")
def pictures():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (10, SIDE, SIDE, 3), dtype=np.uint8)
    mean = generator.uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32)
    axes = generator.normal(0, 60, (3, 3)).astype(np.float32)
    return images, mean, axes


def plain(image, index, mean, axes, epoch, crop=CROP, mirror=True, sigma=0.1, seed=SEED):
    """One image by the paper: crop, mean off, reflection, [p1 p2 p3][a1 s1, a2 s2, a3 s3]^T."""
    top, left, turned, alphas = draw(seed, epoch, index, len(image) - crop + 1, sigma)
    rows, columns = slice(top, top + crop), slice(left, left + crop)
    centred = image[rows, columns].astype(np.float32) - mean[rows, columns]
    if mirror and turned:
        centred = centred[:, ::-1]
    noise = np.zeros(3)
    for axis, alpha in zip(axes.astype(np.float64).T, alphas, strict=True):
        noise += axis * alpha
    return centred + noise.astype(np.float32)


def run(kernel, pictures, indices, epoch=3, crop=CROP, mirror=True, sigma=0.1, seed=SEED):
    """Images are taken from `pictures` by index, modulo their number."""
    images, mean, axes = pictures
    indices = np.asarray(indices, np.int64)
    out = np.full((len(indices), crop, crop, 3), np.nan, np.float32)
    chosen = images[indices % len(images)]
    kernel(chosen, out, indices, mean, axes, mirror, sigma, seed, epoch)
    return out


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("crop", [CROP, SIDE])
def test_compiled_kernel_equals_plain_numpy(pictures, crop, mirror):
    images, mean, axes = pictures
    indices = [3, 0, 8, 1_281_166, 5, 2**32 - 1]
    got = run(augment_batch, pictures, indices, crop=crop, mirror=mirror)
    for out, index in zip(got, indices, strict=True):
        expected = plain(images[index % 10], index, mean, axes, 3, crop=crop, mirror=mirror)
        np.testing.assert_array_equal(out, expected)


def test_uncompiled_kernel_equals_plain_numpy(pictures):
    images, mean, axes = pictures
    images, mean = images[:, :20, :20].copy(), mean[:20, :20].copy()
    indices = range(6)
    got = run(augment_batch.py_func, (images, mean, axes), indices, crop=17)
    for out, index in zip(got, indices, strict=True):
        np.testing.assert_array_equal(out, plain(images[index], index, mean, axes, 3, crop=17))


def test_draws_follow_from_the_random_words():
    for index in range(50):
        top, left, mirror, alphas = draw(SEED, 4, index, 33, 0.1)
        key = SEED % 2**32, SEED >> 32
        place = philox4x32(0, index, 4, CROP_AND_MIRROR, *key)
        assert (top, left) == (place[0] * 33 // 2**32, place[1] * 33 // 2**32)
        assert mirror == (place[2] >= 2**31)
        words = philox4x32(0, index, 4, COLOUR_NOISE, *key)
        turns = [
            np.sqrt(-2 * np.log((words[pair] + 1) / 2**32))
            * np.exp(2j * np.pi * words[pair + 1] / 2**32)
            for pair in (0, 2)
        ]
        normals = turns[0].real, turns[0].imag, turns[1].real
        assert alphas == pytest.approx([0.1 * normal for normal in normals], rel=1e-12, abs=1e-12)
        assert draw.py_func(SEED, 4, index, 33, 0.1) == (top, left, mirror, pytest.approx(alphas))


def test_distribution_of_the_draws():
    count = 200_000
    draws = [draw(1, 0, index, 33, 0.1) for index in range(count)]  # 33 = 256 - 224 + 1
    places = np.zeros((33, 33))
    np.add.at(places, ([d[0] for d in draws], [d[1] for d in draws]), 1)
    assert places.min() > 0
    expected = count / 33**2
    chi_square = ((places - expected) ** 2 / expected).sum()
    freedom = 33**2 - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    mirrored = sum(d[2] for d in draws)
    assert abs(mirrored - count / 2) < 4 * np.sqrt(count / 4)

    alphas = np.array([d[3] for d in draws]) / 0.1
    assert np.abs(alphas.mean(axis=0)).max() < 4 / np.sqrt(count)
    np.testing.assert_allclose(np.cov(alphas.T), np.eye(3), atol=4 * np.sqrt(2 / count))
    np.testing.assert_allclose((alphas**4).mean(axis=0), 3, atol=4 * np.sqrt(96 / count))


def test_same_pixels_for_any_split_and_order(pictures):
    indices = np.arange(23)
    whole = run(augment_batch, pictures, indices)
    order = np.random.default_rng(1).permutation(indices)
    np.testing.assert_array_equal(run(augment_batch, pictures, order), whole[order])
    for cut in (1, 7):
        parts = [run(augment_batch, pictures, indices[at : at + cut]) for at in range(0, 23, cut)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_same_pixels_for_any_thread_count(pictures):
    before = numba.get_num_threads()
    try:
        results = []
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            results.append(run(augment_batch, pictures, np.arange(40)))
    finally:
        numba.set_num_threads(before)
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_epoch_seed_and_sample_each_change_the_draw():
    first = draw(1, 0, 5, 33, 0.1)
    others = [draw(1, 1, 5, 33, 0.1), draw(2, 0, 5, 33, 0.1), draw(1, 0, 6, 33, 0.1)]
    others.append(draw(1 + 2**32, 0, 5, 33, 0.1))
    assert len({first, *others}) == 5
    assert draw(1, 0, 5, 33, 0.1) == first


def test_no_noise_when_sigma_is_zero(pictures):
    images, mean, _ = pictures
    out = run(augment_batch, pictures, [4], crop=SIDE, mirror=False, sigma=0.0)
    np.testing.assert_array_equal(out[0], images[4].astype(np.float32) - mean)


def test_nothing_is_clipped():
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    mean = np.zeros((8, 8, 3), np.float32)
    axes = np.full((3, 3), 1000, np.float32)
    outs = [run(augment_batch, (white, mean, axes), [i], crop=8) for i in range(20)]
    assert max(out.max() for out in outs) > 255
    assert min(out.min() for out in outs) < 0


def test_noise_axes_are_columns_times_their_scale():
    vectors = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    statistics = Statistics(
        count=1,
        mean_image=np.zeros((4, 4, 3), np.float32),
        channel_mean=np.zeros(3),
        covariance=vectors @ np.diag([14400.0, 1600.0, 400.0]) @ vectors.T,
        eigenvalues=np.array([14400.0, 1600.0, 400.0]),
        eigenvectors=vectors,
        decoder="test",
        pixels_id="test",
    )
    axes = noise_axes(statistics, "standard_deviations")
    assert axes.dtype == np.float32
    np.testing.assert_allclose(axes[:, 0], vectors[:, 0] * 120, rtol=1e-6)
    # alphas of standard deviation 1 give the covariance of the pixels
    np.testing.assert_allclose(axes @ axes.T, statistics.covariance, rtol=1e-5, atol=1e-2)
    eigenvalue_axes = noise_axes(statistics, "eigenvalues")
    np.testing.assert_allclose(eigenvalue_axes[:, 2], vectors[:, 2] * 400, rtol=1e-6)


# --------------------------------------------------------------------------- inside FFCV


class _Indexed(torch.utils.data.Dataset):
    """(image, index) pairs for FFCV's writer."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index


@pytest.fixture(scope="module")
def beton(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("augment") / "ten.beton"
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(_Indexed(pictures[0]))
    return path


def load(beton, operation, order, workers):
    return Loader(
        str(beton),
        batch_size=4,
        num_workers=workers,
        order=order,
        seed=0,
        drop_last=False,
        pipelines={
            "image": [SimpleRGBImageDecoder(), operation, ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )


@pytest.mark.parametrize(
    ("order", "workers"), [(OrderOption.RANDOM, 1), (OrderOption.SEQUENTIAL, 2)]
)
def test_ffcv_loader_gives_each_sample_its_augmentation(beton, pictures, order, workers):
    images, mean, axes = pictures
    workers = min(workers, numba.config.NUMBA_NUM_THREADS)
    operation = Augment(Augmentation(CROP, True, 0.1, SEED), mean, axes)
    loader = load(beton, operation, order, workers)
    for epoch in (0, 7):
        operation.epoch = epoch
        seen = []
        for batch, labels in loader:
            assert batch.dtype == torch.float32
            for out, (index,) in zip(batch.numpy(), labels.tolist(), strict=True):
                np.testing.assert_array_equal(out, plain(images[index], index, mean, axes, epoch))
                seen.append(index)
        assert sorted(seen) == list(range(10))  # two batches of 4, one of 2


def test_mean_image_of_another_size_is_refused(beton, pictures):
    operation = Augment(Augmentation(CROP, True, 0.1, SEED), pictures[1][:60, :60], pictures[2])
    with pytest.raises(UserError, match=r"\(64, 64, 3\).*\(60, 60, 3\)"):
        load(beton, operation, OrderOption.SEQUENTIAL, 1)


def test_crop_larger_than_the_image_is_refused(beton, pictures):
    operation = Augment(Augmentation(SIDE + 1, True, 0.1, SEED), *pictures[1:])
    with pytest.raises(UserError, match="crop of 65 does not fit images of 64x64"):
        load(beton, operation, OrderOption.SEQUENTIAL, 1)
