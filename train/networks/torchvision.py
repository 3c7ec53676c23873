"""torchvision's AlexNet, torchvision.models.alexnet: 61,100,840 parameters at 1000 classes.

One tower of 64, 192, 384, 256 and 256 maps, after A. Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", 2014; no norm, conv1 padded by 2 on all sides,
dropout on the inputs of fc6 and fc7.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from train.networks.dropout import CounterDropout
from train.networks.layers import POOLED_SIDE, AlexNet

# torchvision's names of the layers, for weights that were saved under them.
NAMES = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}


class TorchvisionNet(AlexNet):
    """Equal to torchvision's but for the dropout masks, which follow from `seed`."""

    def __init__(self, classes: int, *, width: float, dropout: float, seed: int) -> None:
        super().__init__((64, 192, 384, 256, 256), classes, width=width, conv1_padding=2)
        self.dropout6 = CounterDropout(self.fc6.in_features, dropout, seed, 0, "training")
        self.dropout7 = CounterDropout(self.fc7.in_features, dropout, seed, 1, "training")

    def forward(
        self,
        x: torch.Tensor,
        step: int | torch.Tensor = 0,
        samples: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = self.pool5(F.relu(self.conv5(x)))
        x = F.adaptive_avg_pool2d(x, POOLED_SIDE).flatten(1)  # [B,256,6,6] to [B,9216], map first
        x = F.relu(self.fc6(self.dropout6(x, step, samples)))
        x = F.relu(self.fc7(self.dropout7(x, step, samples)))
        logits: torch.Tensor = self.fc8(x)
        return logits


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """torchvision's state dict under our names, "features.0.weight" as "conv1.weight".

    Raises KeyError for a name that torchvision's AlexNet does not have.
    """
    return {
        f"{NAMES[layer]}.{kind}": values
        for name, values in weights.items()
        for layer, kind in [name.rsplit(".", 1)]
    }
