"""One tower with batch norm after every hidden ReLU and dropout after every pool.

The network of the Caltech-256 write-up: adeveloperdiary/DeepLearning_MiniProjects, file
AlexNet/model.py. 62,397,480 parameters at 1000 classes. Its read-me's table shows a dropout after
fc7 too, its code has none: the code is followed. Its LogSoftmax is part of the loss here.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from train.networks.dropout import CounterDropout
from train.networks.layers import POOLED_SIDE, AlexNet, padded
from train.networks.paper import MAPS

POOL1_SIDE, POOL2_SIDE = 27, 13  # pixels of the maps after the first two pools


class BatchNormNet(AlexNet):
    """dropout: of fc6's outputs; pool_dropout: of every pool's, unit by unit as torch.nn.Dropout.

    Both are scaled in training. seed: of the masks. A batch of one sample is a ValueError in
    training: fc6 and fc7 give batch norm nothing to compare it with.
    """

    def __init__(
        self, classes: int, *, width: float, dropout: float, pool_dropout: float, seed: int
    ) -> None:
        super().__init__(MAPS, classes, width=width)
        self.norm1 = nn.BatchNorm2d(self.conv1.out_channels)
        self.norm2 = nn.BatchNorm2d(self.conv2.out_channels)
        self.norm3 = nn.BatchNorm2d(self.conv3.out_channels)
        self.norm4 = nn.BatchNorm2d(self.conv4.out_channels)
        self.norm5 = nn.BatchNorm2d(self.conv5.out_channels)
        self.norm6 = nn.BatchNorm1d(self.fc6.out_features)
        self.norm7 = nn.BatchNorm1d(self.fc7.out_features)

        def dropped(units: int, probability: float, layer: int) -> CounterDropout:
            return CounterDropout(units, probability, seed, layer, "training")

        self.dropout6 = dropped(self.fc6.out_features, dropout, 0)
        self.dropout1 = dropped(self.conv1.out_channels * POOL1_SIDE**2, pool_dropout, 1)
        self.dropout2 = dropped(self.conv2.out_channels * POOL2_SIDE**2, pool_dropout, 2)
        self.dropout5 = dropped(self.conv5.out_channels * POOLED_SIDE**2, pool_dropout, 3)

    def forward(
        self,
        x: torch.Tensor,
        step: int | torch.Tensor = 0,
        samples: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.pool1(self.norm1(F.relu(self.conv1(padded(x)))))
        x = self.dropout1(x, step, samples)
        x = self.pool2(self.norm2(F.relu(self.conv2(x))))
        x = self.dropout2(x, step, samples)
        x = self.norm3(F.relu(self.conv3(x)))
        x = self.norm4(F.relu(self.conv4(x)))
        x = self.pool5(self.norm5(F.relu(self.conv5(x))))
        x = self.dropout5(x, step, samples).flatten(1)  # [B,256,6,6] to [B,9216], map first
        x = self.dropout6(self.norm6(F.relu(self.fc6(x))), step, samples)
        x = self.norm7(F.relu(self.fc7(x)))
        logits: torch.Tensor = self.fc8(x)
        return logits
