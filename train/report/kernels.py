"""conv1's kernels as pictures, by tower (paper, figure 3).

A kernel's weights, of which 0 is grey, are brought to 0..255 by its own largest magnitude: how
strong a kernel is beside another does not show.
"""

from __future__ import annotations

import numpy as np
import torch

from train.networks.layers import AlexNet
from train.report.data import Pixels

COLUMNS = 16  # paper, figure 3: three rows of sixteen for each GPU
GAP = 1  # pixels between kernels


def by_tower(network: AlexNet) -> list[Pixels]:
    """An RGBA picture for each tower; one where conv2 sees all of conv1's maps."""
    weights = network.conv1.weight.detach().float().cpu()  # [maps,3,11,11]
    return [_sheet(part) for part in weights.chunk(network.conv2.groups)]


def _sheet(weights: torch.Tensor) -> Pixels:
    """uint8 [rows,columns,4] of kernels [K,3,H,W]; between them the page is seen."""
    largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    kernels_KHWC = (weights / largest * 127.5 + 127.5).round().permute(0, 2, 3, 1).byte().numpy()
    count, height, width, _ = kernels_KHWC.shape
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for place, kernel_HWC in enumerate(kernels_KHWC):
        row, column = divmod(place, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        sheet[top : top + height, left : left + width, :3] = kernel_HWC
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet
