"""The eight layers that every AlexNet has; what happens between them is each variant's own.

conv1 sees 11x11 places at stride 4, conv2 5x5, conv3 to conv5 3x3; pools are of 3x3 places at
stride 2 after the first, second and fifth (paper, sections 3.4 and 3.5). The layers' names are
the same in every variant: initial weights and rates by layer go by them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

POOLED_SIDE = 6  # pixels of a conv5 map after its pool
CONV1_SIDE = 227  # pixels: what conv1 needs for its 55 places; 224 + 3 zeros (authors' code)


class AlexNet(nn.Module):
    """A variant calls its __init__ and defines

        forward(x, step=0, samples=None)

    which takes x, float32 [B,3,crop,crop] less the mean image, in any memory format, to logits
    [B,classes]. In training, `step` counts updates and `samples` (int64 [B]) are the images'
    indices in the data set: the dropout masks follow from them; ValueError without `samples`.
    """

    def __init__(
        self,
        maps: tuple[int, int, int, int, int],
        classes: int,
        *,
        width: float,
        towers: int = 1,
        conv1_padding: int = 0,
    ) -> None:
        """maps: of the five convolutions at width 1, see narrowed(); fc6 and fc7 have 4096 units.

        towers: groups of conv2, conv4 and conv5, which see only the maps of their own.
        """
        super().__init__()
        c1, c2, c3, c4, c5 = (narrowed(size, width) for size in maps)
        units = narrowed(4096, width)  # paper section 3.5
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4, padding=conv1_padding)
        self.pool1 = nn.MaxPool2d(3, stride=2)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=towers)
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=towers)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=towers)
        self.pool5 = nn.MaxPool2d(3, stride=2)
        self.fc6 = nn.Linear(c5 * POOLED_SIDE**2, units)
        self.fc7 = nn.Linear(units, units)
        self.fc8 = nn.Linear(units, classes)


def narrowed(size: int, width: float) -> int:
    """A layer's size times `width`, as a multiple of 8, at least 8: four a tower."""
    return max(8, round(size * width / 8) * 8)


def padded(x: torch.Tensor) -> torch.Tensor:
    """[B,3,S,S] with zeros to the right and bottom up to 227x227, in channels_last."""
    missing = CONV1_SIDE - x.shape[-1]
    return F.pad(x.contiguous(memory_format=torch.channels_last), (0, missing, 0, missing))
