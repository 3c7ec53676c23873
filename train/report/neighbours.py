"""The training images nearest to some others by the last hidden layer (paper, figure 4, right).

Distances are Euclidean, between what fc8 is given for the centre view: in the paper's network the
4096 outputs of fc7. Training images go by in batches, and only the nearest so far are kept: memory
does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from train.dataset import Dataset
from train.evaluate import Views, probabilities
from train.networks.layers import AlexNet
from train.report.data import Pixels, read_pictures
from train.screen import Screen

NEAREST = 6  # paper, figure 4
MOST = 50_000  # training images that are looked through, spread evenly over the beton
BATCH = 128  # images


def looked_through(dataset: Dataset) -> list[int]:
    """The samples among which neighbours are sought: all, or MOST of them."""
    count = min(len(dataset), MOST)
    return [int(sample) for sample in np.arange(count) * len(dataset) // count]


@torch.inference_mode()
def nearest(
    network: AlexNet, pictures: Sequence[Pixels], dataset: Dataset, centre: Views, screen: Screen
) -> list[list[int]]:
    """For each picture the samples of the NEAREST training images, the nearest first.

    `network` is in evaluation mode on the device of `centre`, which is one view.
    """
    wanted = features(network, np.stack(pictures), centre)
    distances = torch.empty(len(pictures), 0)
    samples = torch.empty(len(pictures), 0, dtype=torch.int64)
    sought = looked_through(dataset)
    parts = [sought[start : start + BATCH] for start in range(0, len(sought), BATCH)]
    for part in screen.follow("neighbours", parts, len(parts)):
        found = torch.cdist(
            wanted, features(network, np.stack(read_pictures(dataset, part)), centre)
        )
        distances = torch.cat([distances, found], dim=1)
        samples = torch.cat([samples, torch.tensor(part).expand(len(pictures), -1)], dim=1)
        distances, order = distances.topk(min(NEAREST, distances.shape[1]), largest=False)
        samples = samples.gather(1, order)
    return [[int(sample) for sample in row] for row in samples]


def features(network: AlexNet, images_BSSC: Pixels, centre: Views) -> torch.Tensor:
    """What fc8 is given, float32 [B,units] on the CPU."""
    given: list[torch.Tensor] = []

    def keep(_layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        given.append(inputs[0])

    device = centre.mean_SSC.device
    hook = network.fc8.register_forward_pre_hook(keep)
    try:
        samples = torch.arange(len(images_BSSC), device=device)
        probabilities(network, torch.from_numpy(images_BSSC).to(device), centre, samples)
    finally:
        hook.remove()
    return given[0].float().cpu()
