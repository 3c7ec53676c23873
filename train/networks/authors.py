"""AlexNet as its authors ran it in 2012: computerhistory/AlexNet-Source-Code, layers-145.cfg.

The paper's layers and towers in another order. Stage 1: convolution, response norm of what may be
negative, pool, ReLU. Stage 2: convolution, ReLU, response norm across maps, another within each
map, pool. Stage 5: convolution, pool, ReLU. 60,965,224 parameters at 1000 classes. The scale of
their norm across maps, 1e-4, is divided by its window's 5 (layer.py, NormLayerParser): 2e-5.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from train.networks.paper import PaperNet
from train.networks.response_norm import SpatialResponseNorm


class AuthorsNet(PaperNet):
    """Layers are called as the paper's; `spatial2` is their cnorm2a and cnorm2b."""

    def __init__(
        self, classes: int, *, width: float, dropout: float, seed: int, lrn_alpha: float
    ) -> None:
        super().__init__(classes, width=width, dropout=dropout, seed=seed, lrn_alpha=lrn_alpha)
        self.spatial2 = SpatialResponseNorm()

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """The five convolutional stages, [B,3,227,227] to [B,256,6,6]."""
        x = F.relu(self.pool1(self.norm1(self.conv1(x))))
        x = self.pool2(self.spatial2(self.norm2(F.relu(self.conv2(x)))))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        return F.relu(self.pool5(self.conv5(x)))
