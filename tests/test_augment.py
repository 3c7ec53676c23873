"""The training augmentation: against plain NumPy, its distribution, its purity.

Three ways are compared with one NumPy version: the kernel uncompiled, compiled, and as tensors.
"""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import augment_batch, make_statistics
from golden_augment import GOLDEN, sheet
from PIL import Image

from prep.program import UserError
from train import augment
from train.augment import Augment, draw, mirror_row, tables
from train.augment_device import DeviceAugment
from train.augmentation import Augmentation, of_recipe
from train.philox import COLOUR_NOISE, CROP_AND_MIRROR, philox4x32
from train.recipe import load_recipe

SIDE, CROP = 40, 33
SEED = 20120930 << 20  # more than 32 bits
EPOCH = 3
PAPER = Augmentation(CROP, True, 0.1, SEED)
ULP = 2.0**-16  # of a float32 between 128 and 255: one grey level is 65536 of them

OPTIONS = {
    "paper": {},
    "no mirror": {"mirror": False},
    "whole picture": {"crop": SIDE},
    "centre mean": {"mean": "centre"},
    "eigenvalues": {"noise": "eigenvalues"},
    "per image": {"noise": "per-image", "colour_noise": 1.0},
    "no noise": {"noise": "none", "noise_divisor": 1.1},
    "sigma 0": {"colour_noise": 0.0, "noise_divisor": 1.1},
    "authors": {"mean": "centre", "noise_divisor": 1.1, "share": 4, "noise_until": EPOCH + 1},
    "authors, late": {"mean": "centre", "noise_divisor": 1.1, "share": 4, "noise_until": EPOCH},
    "per image, divided": {"noise": "per-image", "noise_divisor": 1.5, "noise_until": 9},
    "channel means": {"mean": "channels", "pixel_divisor": 58.0},
    "half, divided": {"mean": "half", "pixel_divisor": 127.5, "noise_divisor": 1.1},
    "half, late": {"mean": "half", "pixel_divisor": 127.5, "noise_until": EPOCH},
    "per image, late": {"noise": "per-image", "noise_divisor": 1.5, "noise_until": EPOCH},
}


@pytest.fixture(scope="module")
def pictures():
    """uint8 [10,40,40,3]: noise, one picture in grey, one of one colour."""
    images = np.random.default_rng(0).integers(0, 256, (10, SIDE, SIDE, 3), dtype=np.uint8)
    images[4] = images[4, :, :, :1]
    images[5] = 200, 100, 50
    return images


@pytest.fixture(scope="module")
def statistics():
    return make_statistics(SIDE)


def plain(image, index, what, statistics, epoch=EPOCH):
    """One image by the paper or the authors' description, in 64 bits."""
    side, crop = len(image), what.crop
    positions = side - crop + 1
    top, left, turned, alphas = draw(what.seed, epoch, index, positions, 1.0, what.share)
    turned = turned and what.mirror
    sigma = what.colour_noise
    if what.noise == "none" or (what.noise_until and epoch >= what.noise_until):
        sigma = 0.0
    pixels = image[top : top + crop, left : left + crop].astype(np.float64)
    mean = statistics.mean_image.astype(np.float64)
    if what.mean == "channels":
        mean = np.broadcast_to(mean.mean((0, 1)), mean.shape)
    if what.mean == "half":
        mean = np.full(mean.shape, 127.5)

    # [p1 p2 p3][a1 s1, a2 s2, a3 s3]^T
    values, vectors = statistics.eigenvalues, statistics.eigenvectors
    if what.noise == "per-image":
        values, vectors = np.linalg.eigh(np.cov(image.reshape(-1, 3).T.astype(float), ddof=0))
        values, vectors = values[::-1].clip(0), vectors[:, ::-1]
        vectors = vectors * [np.sign(v[np.abs(v).argmax()]) for v in vectors.T]
    scales = values if what.noise == "eigenvalues" else np.sqrt(values)
    pixels = pixels + vectors @ (sigma * np.array(alphas) * scales)
    if what.noise == "per-image":
        pixels = pixels.clip(0, 255)

    if what.mean != "centre":
        out = pixels - mean[top : top + crop, left : left + crop]
        out = out[:, ::-1] if turned else out
    else:
        border = (side - crop) // 2
        out = pixels[:, ::-1] if turned else pixels
        out = out - mean[border : border + crop, border : border + crop]
    return out / what.pixel_divisor / (what.noise_divisor if sigma else 1)


def compiled(images, indices, what, statistics, epoch=EPOCH):
    indices = np.asarray(indices, np.int64)
    out = np.full((len(indices), what.crop, what.crop, 3), np.nan, np.float32)
    augment_batch(images[indices % len(images)], out, indices, epoch, tables(what, statistics))
    return out


def uncompiled(images, indices, what, statistics, epoch=EPOCH):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("augment_image", "draw", "mirror_row", "image_axes", "philox4x32"):
            patch.setattr(augment, name, getattr(augment, name).py_func)
        indices = np.asarray(indices, np.int64)
        out = np.full((len(indices), what.crop, what.crop, 3), np.nan, np.float32)
        chosen = images[indices % len(images)]
        augment_batch(chosen, out, indices, epoch, tables(what, statistics))
    return out


def as_tensors(images, indices, what, statistics, epoch=EPOCH):
    indices = torch.as_tensor(indices)
    module = DeviceAugment(dataclasses.replace(what, image_side=images.shape[1]), statistics)
    out = module(torch.from_numpy(images)[indices % len(images)], indices, torch.tensor(epoch))
    assert out.is_contiguous(memory_format=torch.channels_last)
    return out.permute(0, 2, 3, 1).numpy()  # NCHW to NHWC


@pytest.mark.parametrize("way", [uncompiled, compiled, as_tensors])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_equals_plain_numpy(pictures, statistics, options, way):
    what = dataclasses.replace(PAPER, **options)
    indices = [*range(9), 1_281_166, 2**32 - 1]
    got = way(pictures, indices, what, statistics)
    for out, index in zip(got, indices, strict=True):
        expected = plain(pictures[index % 10], index, what, statistics)
        np.testing.assert_allclose(out, expected, rtol=4e-7, atol=4 * ULP)


def test_the_plain_version_takes_every_turn(pictures, statistics):
    """What the comparison covers: mirrored and not, noise off and on, clipped and not."""
    what = dataclasses.replace(PAPER, noise="per-image", colour_noise=1.0)
    draws = [draw(SEED, EPOCH, index, SIDE - CROP + 1, 1.0) for index in range(9)]
    assert {mirror for _, _, mirror, _ in draws} == {True, False}
    whole = dataclasses.replace(what, mirror=False, crop=SIDE)
    mean = statistics.mean_image
    back = [plain(pictures[i], i, whole, statistics) + mean for i in range(9)]
    assert {0.0, 255.0} <= set(np.round(back, 9).ravel().tolist())


@pytest.mark.parametrize("kernel", [mirror_row, mirror_row.py_func])
@pytest.mark.parametrize("pixels", [1, 2, 5, 21, 22, 31, 224, 227])
def test_a_row_is_mirrored_pixel_by_pixel(kernel, pixels):
    row = np.random.default_rng(pixels).integers(0, 256, (pixels, 3), dtype=np.uint8)
    out = np.zeros(3 * pixels, np.uint8)
    kernel(row.reshape(-1), out)
    np.testing.assert_array_equal(out.reshape(-1, 3), row[::-1])


# --------------------------------------------------------------------------- what is drawn


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


@pytest.mark.parametrize("positions", [33, 30])  # 256 - 224 + 1 and 256 - 227 + 1
def test_distribution_of_the_draws(positions):
    count = 200_000
    draws = [draw(1, 0, index, positions, 0.1) for index in range(count)]
    places = np.zeros((positions, positions))
    np.add.at(places, ([d[0] for d in draws], [d[1] for d in draws]), 1)
    assert places.min() > 0
    expected = count / positions**2
    chi_square = ((places - expected) ** 2 / expected).sum()
    freedom = positions**2 - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    mirrored = sum(d[2] for d in draws)
    assert abs(mirrored - count / 2) < 4 * np.sqrt(count / 4)

    alphas = np.array([d[3] for d in draws]) / 0.1
    assert np.abs(alphas.mean(axis=0)).max() < 4 / np.sqrt(count)
    np.testing.assert_allclose(np.cov(alphas.T), np.eye(3), atol=4 * np.sqrt(2 / count))
    np.testing.assert_allclose((alphas**4).mean(axis=0), 3, atol=4 * np.sqrt(96 / count))


def test_epoch_seed_and_sample_each_change_the_draw():
    first = draw(1, 0, 5, 33, 0.1)
    others = [draw(1, 1, 5, 33, 0.1), draw(2, 0, 5, 33, 0.1), draw(1, 0, 6, 33, 0.1)]
    others.append(draw(1 + 2**32, 0, 5, 33, 0.1))
    assert len({first, *others}) == 5
    assert draw(1, 0, 5, 33, 0.1) == first


def test_thirty_two_samples_share_crop_and_mirror_but_not_noise():
    draws = [draw(1, 0, index, 33, 0.1, 32) for index in range(64)]
    places = [(top, left, mirror) for top, left, mirror, _ in draws]
    assert set(places[:32]) == {places[0]}
    assert set(places[32:]) == {places[32]}
    assert places[0] != places[32]
    assert len({alphas for *_, alphas in draws}) == 64
    assert [d[3] for d in draws] == [draw(1, 0, index, 33, 0.1)[3] for index in range(64)]


# --------------------------------------------------------------------------- a pure function


def test_same_pixels_for_any_split_and_order(pictures, statistics):
    indices = np.arange(23)
    for what in (PAPER, dataclasses.replace(PAPER, noise="per-image", share=4)):
        whole = compiled(pictures, indices, what, statistics)
        order = np.random.default_rng(1).permutation(indices)
        np.testing.assert_array_equal(compiled(pictures, order, what, statistics), whole[order])
        for cut in (1, 7):
            starts = range(0, 23, cut)
            parts = [compiled(pictures, indices[i : i + cut], what, statistics) for i in starts]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("way", [compiled, as_tensors])
def test_noise_ends_with_its_epoch_and_so_does_the_divisor(pictures, statistics, way):
    noisy = dataclasses.replace(PAPER, noise_divisor=1.1)
    ending = dataclasses.replace(noisy, noise_until=67)
    quiet = dataclasses.replace(PAPER, noise="none")
    for epoch, same_as in ((0, noisy), (66, noisy), (67, quiet), (90, quiet)):
        np.testing.assert_array_equal(
            way(pictures, [1, 2], ending, statistics, epoch),
            way(pictures, [1, 2], same_as, statistics, epoch),
        )


def test_without_noise_crops_are_exact(pictures, statistics):
    what = dataclasses.replace(PAPER, crop=SIDE, mirror=False, noise="none")
    out = compiled(pictures, [4], what, statistics)
    np.testing.assert_array_equal(out[0], pictures[4].astype(np.float32) - statistics.mean_image)


def test_only_the_noise_of_each_image_is_clipped(pictures, statistics):
    black = dataclasses.replace(statistics, mean_image=np.zeros((SIDE, SIDE, 3), np.float32))
    loud = dataclasses.replace(PAPER, colour_noise=3.0)
    out = compiled(pictures, range(20), loud, black)
    assert out.max() > 255
    assert out.min() < 0
    clipped = compiled(pictures, range(20), dataclasses.replace(loud, noise="per-image"), black)
    assert (clipped.min(), clipped.max()) == (0, 255)


# --------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop", 0),
        ("colour_noise", -0.1),
        ("colour_noise", float("nan")),
        ("colour_noise", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("noise_divisor", 0.0),
        ("noise_divisor", -1.1),
        ("noise_divisor", float("inf")),
        ("noise_until", -1),
        ("share", 0),
    ],
)
def test_nonsense_is_refused_by_name_and_value(field, value):
    with pytest.raises(UserError, match=rf"{field} must be .* it is {value}"):
        dataclasses.replace(PAPER, **{field: value})


def test_the_papers_recipe_is_the_default_augmentation():
    assert of_recipe(load_recipe("paper")) == Augmentation(224, True, 0.1, 0)


def test_a_recipes_values_reach_the_augmentation():
    settings = ["mean=centre", "noise=per-image", "noise_divisor=1.1", "noise_until=67", "share=32"]
    recipe = load_recipe(
        "paper", [*settings, "mirror=false", "colour_noise=0.2", "seed=5", "crop=227"]
    )
    assert of_recipe(recipe) == Augmentation(227, False, 0.2, 5, "centre", "per-image", 1.1, 67, 32)
    recipe = load_recipe("paper", ["image_side=224", "mean=half", "pixel_divisor=127.5"])
    assert of_recipe(recipe) == Augmentation(
        224, True, 0.1, 0, "half", image_side=224, pixel_divisor=127.5
    )


def test_32_epochs_of_a_picture_are_as_they_were():
    golden = np.asarray(Image.open(GOLDEN), np.int16)
    assert np.abs(sheet().astype(np.int16) - golden).max() <= 1  # a tie may round the other way


def test_crop_larger_than_the_image_is_refused(statistics):
    with pytest.raises(UserError, match="crop of 41 does not fit images of 40x40"):
        Augment(dataclasses.replace(PAPER, crop=SIDE + 1), statistics)
