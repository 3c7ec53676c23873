"""Dropout whose mask is a function of (seed, layer, step, sample, unit).

It does not depend on how samples are divided into batches or among processes, nor on restarts.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from train.philox import DROPOUT, TWO_TO_32, key_words, philox4x32_torch

Scaled = Literal["evaluation", "training"]


class CounterDropout(nn.Module):
    """Drops units of [B,units] or [B,C,H,W] with `probability` in training.

    scaled: "evaluation": training multiplies by zeros and ones, evaluation by the share kept
    (paper, section 4.2); "training": what is kept is divided by the share kept in training, and
    evaluation leaves all as it is (torch.nn.Dropout).
    layer: the number of the dropout layer in its network; each has masks of its own.
    """

    blocks: torch.Tensor

    def __init__(
        self, units: int, probability: float, seed: int, layer: int, scaled: Scaled = "evaluation"
    ) -> None:
        super().__init__()
        self.units, self.probability, self.scaled = units, probability, scaled
        self.key, self.stream = key_words(seed), DROPOUT + layer
        # A buffer: torch.compile's index arithmetic on an arange overflows 32 bits in Philox.
        blocks = torch.arange(math.ceil(units / 4))
        self.register_buffer("blocks", blocks, persistent=False)

    def forward(
        self, x: torch.Tensor, step: int | torch.Tensor, samples: torch.Tensor | None
    ) -> torch.Tensor:
        """x [B,units] or [B,C,H,W]; step and samples (int64 [B], data set indices) in [0, 2^32).

        Raises ValueError in training without `samples`.
        """
        kept = 1.0 - self.probability
        if not self.training:
            return x * kept if self.scaled == "evaluation" else x
        if samples is None:
            raise ValueError("in training, dropout needs `samples`, the data set indices [B]")
        words = philox4x32_torch((self.blocks, samples[:, None], step, self.stream), self.key)
        # Four words a counter: 4 x [B,blocks] to [B,units], unit = 4 * block + word.
        uniform = torch.stack(words, dim=2).flatten(1)[:, : self.units]
        mask = (uniform >= int(self.probability * TWO_TO_32)).to(x.dtype)
        if x.dim() == 4:
            _, channels, height, width = x.shape
            # Units by row, column, map, as channels_last lies in memory: NHWC to NCHW.
            mask = mask.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return x * mask if self.scaled == "evaluation" else x * mask / kept
