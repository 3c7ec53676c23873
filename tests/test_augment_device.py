"""The augmentation as tensors: its draws, resizing, layout, and inside torch.compile.

Its pixels are compared with plain NumPy and the kernel's in test_augment.py.
"""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import augment_batch, make_statistics
from torch._dynamo.testing import CompileCounterWithBackend

from prep.program import UserError
from train.augment import draw, tables
from train.augment_device import DeviceAugment, draw_torch, to_side
from train.augmentation import Augmentation
from train.colour import deviation_axes, image_axes

IMAGE_SIDE = 256
SEED = 20120930 << 20  # more than 32 bits
PAPER = Augmentation(224, True, 0.1, SEED)


def noise_images(count, side):
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("share", [1, 32])
def test_draws_are_the_kernels(share):
    what = dataclasses.replace(PAPER, share=share)
    samples = torch.cat([torch.arange(500), torch.tensor([1_281_166, 2**32 - 1])])
    top, left, turned, alphas = draw_torch(what, samples, torch.tensor(7), 33, torch.float64)
    for number, sample in enumerate(samples.tolist()):
        expected = draw(SEED, 7, sample, 33, 0.1, share)
        assert (int(top[number]), int(left[number])) == expected[:2]
        assert bool(turned[number]) == expected[2]
        assert [float(a[number]) for a in alphas] == pytest.approx(expected[3], rel=1e-12)


def test_the_networks_type_and_layout():
    module = DeviceAugment(PAPER, make_statistics(256), dtype=torch.bfloat16)
    exact = DeviceAugment(PAPER, make_statistics(256))
    images, samples = torch.from_numpy(noise_images(3, 256)), torch.arange(3)
    out = module(images, samples, torch.tensor(0))
    assert (out.shape, out.dtype) == ((3, 3, 224, 224), torch.bfloat16)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, exact(images, samples, torch.tensor(0)).bfloat16())


def test_a_crop_larger_than_the_side_is_refused():
    with pytest.raises(UserError, match="crop of 257 does not fit images of 256x256"):
        DeviceAugment(dataclasses.replace(PAPER, crop=257), make_statistics(256))


# --------------------------------------------------------------------------- other sides


def plain_resize(image, side):
    """Antialiased bilinear, one axis after the other, in 64 bits: weights of a triangle."""
    scale = len(image) / side
    reach = max(scale, 1.0)
    centres = (np.arange(side) + 0.5) * scale
    weights = 1 - np.abs(np.arange(len(image)) + 0.5 - centres[:, None]) / reach
    weights = weights.clip(0)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.tensordot(weights, image.astype(np.float64), axes=1)  # [side,S,3]
    return np.einsum("xj,yjc->yxc", weights, rows, optimize=True)


@pytest.mark.parametrize("side", [64, 255, 256, 300, 512])
def test_images_of_another_side_are_resized(side):
    images = noise_images(2, side)
    resized = to_side(torch.from_numpy(images), IMAGE_SIDE)
    assert resized.shape == (2, IMAGE_SIDE, IMAGE_SIDE, 3)
    for got, image in zip(resized.numpy(), images, strict=True):
        np.testing.assert_allclose(got, plain_resize(image, IMAGE_SIDE), atol=1e-3)


def test_the_mean_of_resized_images_is_the_resized_mean():
    images = torch.from_numpy(noise_images(20, 64))
    mean = images.float().mean(dim=0, keepdim=True)
    torch.testing.assert_close(to_side(images, 256).mean(0), to_side(mean, 256)[0])


@pytest.mark.parametrize("mean", ["matched", "centre"])
@pytest.mark.parametrize("noise", ["standard-deviations", "per-image"])
def test_small_images_are_augmented_at_the_papers_side(mean, noise):
    """As plain NumPy does to the resized picture; its colours are those of the stored pixels."""
    what = dataclasses.replace(PAPER, mean=mean, noise=noise, noise_divisor=1.1)
    statistics, images, samples = make_statistics(64), noise_images(6, 64), torch.arange(6)
    module = DeviceAugment(what, statistics)
    out = module(torch.from_numpy(images), samples, torch.tensor(2)).permute(0, 2, 3, 1).numpy()
    mean_image = plain_resize(statistics.mean_image, 256)
    deviations = statistics.eigenvectors * statistics.standard_deviations
    for sample in range(6):
        top, left, turned, alphas = draw(SEED, 2, sample, 33, 0.1)
        pixels = plain_resize(images[sample], 256)[top : top + 224, left : left + 224]
        if noise == "per-image":
            pixels = (pixels + image_axes(images[sample]) @ alphas).clip(0, 255)
        else:
            pixels = pixels + deviations @ alphas
        step = -1 if turned else 1
        if mean == "matched":
            pixels = (pixels - mean_image[top : top + 224, left : left + 224])[:, ::step]
        else:
            pixels = pixels[:, ::step] - mean_image[16:240, 16:240]
        np.testing.assert_allclose(out[sample], pixels / 1.1, atol=2e-3)


# --------------------------------------------------------------------------- axes of an image


def numpy_axes(image):
    """Of NumPy's covariance and LAPACK, the largest component of an axis positive."""
    values, vectors = np.linalg.eigh(np.cov(image.reshape(-1, 3).T.astype(float), ddof=0))
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    signs = [np.sign(vector[np.abs(vector).argmax()]) for vector in vectors.T]
    return vectors * signs * np.sqrt(values)


@pytest.mark.parametrize("kernel", [image_axes, image_axes.py_func])
def test_axes_of_an_image_are_those_of_numpy(kernel):
    generator = np.random.default_rng(1)
    for spread in ([1, 1, 1], [90, 30, 10], [5, 60, 60], [0, 0, 40], [1e-3, 50, 1]):
        pixels = generator.normal(size=(24, 24, 3)) * spread @ generator.normal(size=(3, 3)) + 128
        image = pixels.clip(0, 255).astype(np.uint8)
        np.testing.assert_allclose(kernel(image), numpy_axes(image), rtol=1e-7, atol=1e-5)


def test_axes_of_grey_and_of_one_colour():
    grey = np.repeat(noise_images(1, 24)[0, :, :, :1], 3, axis=2)
    axes = image_axes(grey)
    np.testing.assert_allclose(axes[:, 0], grey[:, :, 0].std(), rtol=1e-7)
    np.testing.assert_allclose(axes[:, 1:], 0, atol=1e-5)
    np.testing.assert_array_equal(image_axes(np.full((24, 24, 3), 77, np.uint8)), np.zeros((3, 3)))


def test_axes_of_diagonal_and_of_equal_covariances():
    for diagonal in ((9.0, 4.0, 1.0), (1.0, 4.0, 9.0), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0)):
        axes = np.array(deviation_axes((*diagonal, 0.0, 0.0, 0.0), np.eye(3)))
        np.testing.assert_allclose(axes.T @ axes, np.diag(diagonal), atol=1e-12)
        np.testing.assert_allclose((axes**2).sum(axis=1), sorted(diagonal, reverse=True))


# --------------------------------------------------------------------------- compiled


@pytest.mark.soak
@pytest.mark.parametrize("noise", ["standard-deviations", "per-image"])
def test_compiled_whole_and_once_for_all_epochs(noise):
    what = dataclasses.replace(PAPER, noise=noise, noise_divisor=1.1, noise_until=2, share=2)
    statistics, images = make_statistics(256), noise_images(4, 256)
    module = DeviceAugment(what, statistics)
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for epoch in range(4):
        samples = torch.arange(4) + 100 * epoch
        got = compiled(torch.from_numpy(images), samples, torch.tensor(epoch))
        assert got.is_contiguous(memory_format=torch.channels_last)
        expected = np.empty((4, 224, 224, 3), np.float32)
        augment_batch(images, expected, samples.numpy(), epoch, tables(what, statistics))
        np.testing.assert_allclose(got.permute(0, 2, 3, 1), expected, rtol=4e-7, atol=2.0**-14)
    assert counter.frame_count == 1
