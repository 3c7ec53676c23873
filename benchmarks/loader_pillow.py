"""A torch DataLoader over prepared files with PIL and NumPy, as benchmarks.bench_loader times it.

It gives what the loader of `train` gives: float32 [B,3,crop,crop], channels last, a random crop
less the training set's mean at its place, mirrored every second time, with colour noise. The noise
runs along the training set's principal axes (the paper), or along those of each picture, which is
then clipped to 0..255 (the write-ups: np.cov and np.linalg.eigh of all its pixels, the noise added
to the whole picture, the crop taken last).

Nothing is done here for slowness' sake: pixels stay uint8 until they are cropped where they can,
batches are put together from [H,W,3] without turning axes, workers persist between epochs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from prep.handover import Statistics
from train.colour import noise_axes

BATCHES_A_WORKER = 4  # at least, of an epoch
SIGMA = 0.1  # of the alphas (paper, section 4.1)


class PreparedFiles(Dataset[tuple[torch.Tensor, int]]):
    """Augmented pictures, float32 [crop,crop,3], and labels."""

    def __init__(
        self,
        paths: list[Path],
        labels: list[int],
        statistics: Statistics,
        crop: int,
        noise_of_each: bool,
    ) -> None:
        self.paths, self.labels = [str(path) for path in paths], labels
        self.mean, self.crop, self.noise_of_each = statistics.mean_image, crop, noise_of_each
        self.axes = noise_axes(statistics, "standard-deviations")
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[sample]) as picture:
            pixels = np.asarray(picture)
        top, left = self.random.integers(0, len(pixels) - self.crop + 1, 2)
        window = slice(top, top + self.crop), slice(left, left + self.crop)
        x_HWC = self._noisy(pixels)[window] if self.noise_of_each else self._crop(pixels, window)
        if self.random.random() < 0.5:
            x_HWC = x_HWC[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(x_HWC)), self.labels[sample]

    def _crop(self, pixels: npt.NDArray[np.uint8], window: Any) -> npt.NDArray[np.float32]:
        x_HWC: npt.NDArray[np.float32] = pixels[window].astype(np.float32)
        x_HWC -= self.mean[window]
        x_HWC += self.axes @ self.random.normal(0, SIGMA, 3).astype(np.float32)
        return x_HWC

    def _noisy(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        values, vectors = np.linalg.eigh(np.cov(pixels.reshape(-1, 3), rowvar=False))
        alphas = self.random.normal(0, SIGMA, 3)
        noise = vectors @ (alphas * np.sqrt(np.maximum(values, 0)))
        x_HWC: npt.NDArray[np.float32] = pixels + noise.astype(np.float32)
        np.clip(x_HWC, 0, 255, out=x_HWC)
        x_HWC -= self.mean
        return x_HWC


class Draw(Sampler[int]):
    """`size` samples at random, each epoch."""

    def __init__(self, samples: int) -> None:
        self.samples, self.size = samples, 0
        self._random = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Any:
        passes = math.ceil(self.size / self.samples)
        drawn = np.concatenate([self._random.permutation(self.samples) for _ in range(passes)])
        return iter(drawn[: self.size].tolist())


class Pictures:
    """Epochs of whole batches; workers: 0 for one core, else as many as cores."""

    def __init__(self, files: PreparedFiles, batch: int, cores: int) -> None:
        workers = 0 if cores == 1 else cores
        self._share = batch * cores
        self._draw = Draw(len(files))
        self._loader = DataLoader(
            files,
            batch,
            sampler=self._draw,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # Linux's default for long
        )

    def __call__(self, wanted: int) -> int:
        """An epoch of at least so many pictures, as many for each worker; returns how many."""
        shares = max(BATCHES_A_WORKER, math.ceil(wanted / self._share))
        self._draw.size = shares * self._share
        made = 0
        for images, _ in self._loader:
            made += len(images.permute(0, 3, 1, 2))
        return made
