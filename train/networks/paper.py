"""AlexNet as the paper has it: two towers, response normalisation, dropout on the outputs.

60,965,224 parameters at 1000 classes. With one tower, as most replicas have it, 62,378,344; with
batch norm in the two places of response normalisation, 704 more.

Sources: paper sections 3 (layers) and 4.2 (dropout). From the authors' code: zeros are padded to
the right and the bottom only.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from train.networks.dropout import CounterDropout
from train.networks.layers import AlexNet, padded
from train.networks.response_norm import ResponseNorm
from train.recipe import DropoutOn

MAPS = (96, 256, 384, 384, 256)  # paper section 3.5
TOWERS = 2  # paper section 3.2, one to a GPU


class PaperNet(AlexNet):
    """The paper's order of things.

    towers: 2, or 1: no groups, and response normalisation across all maps.
    norm: "response", of ResponseNorm with `lrn_alpha`, or "batch" norm in its two places.
    dropout_on: "outputs" of fc6 and fc7, scaled in evaluation (paper), or their "inputs", scaled
    in training (torchvision's net, and replicas after it). seed: of the masks.
    """

    def __init__(
        self,
        classes: int,
        *,
        width: float,
        dropout: float,
        seed: int,
        lrn_alpha: float,
        dropout_on: DropoutOn = "outputs",
        towers: int = TOWERS,
        norm: Literal["response", "batch"] = "response",
    ) -> None:
        super().__init__(MAPS, classes, width=width, towers=towers)
        self.norm1: nn.Module = ResponseNorm(towers, lrn_alpha)
        self.norm2: nn.Module = ResponseNorm(towers, lrn_alpha)
        if norm == "batch":
            self.norm1 = nn.BatchNorm2d(self.conv1.out_channels)
            self.norm2 = nn.BatchNorm2d(self.conv2.out_channels)
        self.dropout_on = dropout_on
        if dropout_on == "outputs":
            self.dropout6 = CounterDropout(self.fc6.out_features, dropout, seed, layer=0)
            self.dropout7 = CounterDropout(self.fc7.out_features, dropout, seed, layer=1)
        else:
            self.dropout6 = CounterDropout(self.fc6.in_features, dropout, seed, 0, "training")
            self.dropout7 = CounterDropout(self.fc7.in_features, dropout, seed, 1, "training")

    def forward(
        self,
        x: torch.Tensor,
        step: int | torch.Tensor = 0,
        samples: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.maps(padded(x)).flatten(1)  # [B,256,6,6] to [B,9216], map first
        if self.dropout_on == "outputs":
            x = self.dropout6(F.relu(self.fc6(x)), step, samples)
            x = self.dropout7(F.relu(self.fc7(x)), step, samples)
        else:
            x = F.relu(self.fc6(self.dropout6(x, step, samples)))
            x = F.relu(self.fc7(self.dropout7(x, step, samples)))
        logits: torch.Tensor = self.fc8(x)
        return logits

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """The five convolutional stages, [B,3,227,227] to [B,256,6,6]."""
        x = self.pool1(self.norm1(F.relu(self.conv1(x))))
        x = self.pool2(self.norm2(F.relu(self.conv2(x))))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = F.relu(self.conv5(x))
        pooled: torch.Tensor = self.pool5(x)
        return pooled
