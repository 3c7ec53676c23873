"""The loader benchmark's other ways do the same work: same pictures, same values, same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import augment_batch, make_statistics
from PIL import Image

from benchmarks.loader_pillow import Pictures, PreparedFiles
from benchmarks.loader_ways import (
    GPU,
    OURS,
    PAPER,
    PILLOW,
    THEIRS,
    WRITE_UPS,
    Task,
    our_ways,
    pillow_ways,
    their_ways,
)
from prep.handover import Statistics
from train.augment import draw, tables
from train.augmentation import Augmentation
from train.dataset import open_dataset

SIDE, CROP, SIGMA, SEED, EPOCH = 256, 224, 0.1, 5, 2
OF_TRAIN = 18  # samples


class OurNumbers:
    """Stands for NumPy's generator; gives what our kernel draws for one sample."""

    def __init__(self, sample: int) -> None:
        top, left, mirror, alphas = draw(SEED, EPOCH, sample, SIDE - CROP + 1, SIGMA)
        self._place, self._mirror, self._alphas = (top, left), mirror, alphas

    def integers(self, *_: Any) -> tuple[int, int]:
        return self._place

    def random(self) -> float:
        return 0.0 if self._mirror else 1.0

    def normal(self, *_: Any) -> npt.NDArray[np.float64]:
        return np.array(self._alphas)


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    return make_statistics(SIDE)


def test_the_dataloader_gives_our_values_for_our_numbers(
    statistics: Statistics, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    expected = np.empty((len(pixels), CROP, CROP, 3), np.float32)
    augmentation = Augmentation(CROP, True, SIGMA, SEED)
    samples = np.arange(len(pixels))
    augment_batch(pixels, expected, samples, EPOCH, tables(augmentation, statistics))
    files = PreparedFiles(paths, samples.tolist(), statistics, CROP, noise_of_each=False)
    for sample in samples.tolist():
        files.random = OurNumbers(sample)  # type: ignore[assignment]
        image, label = files[sample]
        assert label == sample
        np.testing.assert_allclose(image.numpy(), expected[sample], atol=2e-5)


def test_the_write_ups_way_adds_noise_along_each_picture_s_own_axes(
    statistics: Statistics, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).normal(128, 20, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    path = tmp_path / "one.png"
    Image.fromarray(pixels).save(path)
    files = PreparedFiles([path], [0], statistics, CROP, noise_of_each=True)
    files.random = OurNumbers(3)  # type: ignore[assignment]
    top, left, mirror, alphas = draw(SEED, EPOCH, 3, SIDE - CROP + 1, SIGMA)
    window = np.s_[top : top + CROP, left : left + CROP]
    given = files[0][0].numpy()
    noise = (given[:, ::-1] if mirror else given) + statistics.mean_image[window] - pixels[window]
    assert np.ptp(noise, axis=(0, 1)).max() < 1e-4  # one number a colour: no pixel is clipped here
    values = np.linalg.eigvalsh(np.cov(pixels.reshape(-1, 3), rowvar=False))
    assert np.linalg.norm(noise[0, 0]) == pytest.approx(
        np.linalg.norm(alphas * np.sqrt(values)), rel=1e-4
    )


@pytest.fixture
def task(betons: Path, tmp_path: Path) -> Task:
    dataset = open_dataset(betons / "train.beton")
    data = dataset.path.read_bytes()
    paths = [tmp_path / f"{number}.jpg" for number in range(len(dataset))]
    places = zip(dataset.records.ptr.tolist(), dataset.records.size.tolist(), strict=True)
    for path, (start, size) in zip(paths, places, strict=True):
        path.write_bytes(data[start : start + size])
    return Task(dataset.path, False, paths, dataset.labels.tolist(), 6, CROP)


@pytest.mark.filterwarnings("ignore:Using a pytorch transform on the CPU:ResourceWarning")
@pytest.mark.parametrize("kind", [OURS, THEIRS, PILLOW])
def test_every_way_counts_what_it_made(kind: str, task: Task) -> None:
    made_of = {OURS: our_ways, THEIRS: their_ways, PILLOW: pillow_ways}
    for name, way in made_of[kind](task, 1).items():
        made = way(OF_TRAIN)
        assert made >= OF_TRAIN, name
        assert made % 6 == 0, name
        if kind != PILLOW:
            assert made == OF_TRAIN, name


def test_batches_are_of_one_form(statistics: Statistics, task: Task) -> None:
    files = PreparedFiles(task.files, task.labels, statistics, CROP, noise_of_each=False)
    loader = torch.utils.data.DataLoader(files, 6)
    for images, labels in loader:
        assert images.permute(0, 3, 1, 2).shape == (6, 3, CROP, CROP)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
    assert {GPU, PAPER, WRITE_UPS} <= {*our_ways(task, 1), *pillow_ways(task, 1)}
    assert Pictures(files, 6, 1)(20) == 24
