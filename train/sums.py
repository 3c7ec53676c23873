"""Sums of loss, top-1 and top-5 misses: since the last row of metrics.jsonl, and of the epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from train.processes import Processes

NAMES = ("loss", "top1_error", "top5_error")

Means = npt.NDArray[np.float64]  # [3], in the order of NAMES


class EpochSums:
    """Of an epoch's samples. The window since the last row stays on the device, unread.

    Of float32 sums of some steps, float64 has the exact sum, in whichever order they are added:
    several processes' steps before and after a checkpoint come to those of a run without it. (MPS
    has no float64, and one process.)
    """

    def __init__(self, device: torch.device, processes: Processes) -> None:
        self._processes = processes
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._window = torch.zeros(3, dtype=dtype, device=device)  # of this process's samples
        self._window_images = 0  # of all processes
        self._total = np.zeros(3)
        self.counted = 0  # images in the total

    @property
    def images(self) -> int:
        """All images of the epoch so far."""
        return self.counted + self._window_images

    def add(self, sums: torch.Tensor, images: int) -> None:
        """sums: [3], of this process; images: of all processes."""
        self._window += sums
        self._window_images += images

    def take(self) -> Means:
        """The means since the last time; all processes call it."""
        sums = np.array(self._processes.add_up(self._window).tolist())
        means = sums / self._window_images
        self._total += sums
        self.counted += self._window_images
        self._window.zero_()
        self._window_images = 0
        return means

    def means(self) -> Means:
        """Of the epoch, up to the last row."""
        return self._total / max(self.counted, 1)

    def anew(self) -> EpochSums:
        """For the next epoch."""
        return EpochSums(self._window.device, self._processes)

    def state(self) -> list[float]:
        """For a checkpoint; all processes call it."""
        window = self._processes.add_up(self._window.clone()).tolist()
        return [*self._total.tolist(), float(self.counted), *window, float(self._window_images)]

    def load(self, state: Sequence[float]) -> None:
        """Go on from state()."""
        self._total, self.counted = np.array(state[:3]), int(state[3])
        if self._processes.first:
            self._window.copy_(torch.tensor(state[4:7], dtype=self._window.dtype))
        self._window_images = int(state[7])
