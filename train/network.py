"""AlexNet as the paper has it: two towers, response normalisation, dropout on the outputs.

Takes float32 [B,3,224,224], grey levels 0..255 less the mean image, in any memory format; gives
float32 logits [B,classes]. 60,965,224 parameters at 1000 classes.

Sources: paper sections 3 (layers), 4.2 (dropout) and 5 (initial weights). From the authors' code:
zeros are padded to the right and the bottom only, and the mean image is taken off beforehand.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from train.philox import DROPOUT, TWO_TO_32, key_words, philox4x32_torch

INPUT_SIDE = 224  # pixels, paper section 4.1
PADDING = 3  # zeros right and bottom make 227, which conv1 needs for its 55 places (authors' code)
TOWERS = 2  # paper section 3.2, one to a GPU: conv2, conv4 and conv5 see their own tower only
POOLED_SIDE = 6  # pixels of a conv5 map after pooling

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
POSITIVE_START = ("conv2", "conv4", "conv5", "fc6", "fc7")  # biases 1, paper section 5


def sum_windows_(values: torch.Tensor, size: int) -> torch.Tensor:
    """Replace values by sums over `size` (odd) neighbours in the last dimension, fewer at its ends.

    In place: on a CPU, memory fresh from the system costs more than the additions.
    """
    count, reach = values.shape[-1], size // 2
    padded = F.pad(values, (reach, reach))
    for offset in range(size):
        if offset != reach:
            values += padded[..., offset : offset + count]
    return values


class _Normalise(torch.autograd.Function):
    """y = x d^-3/4 with d = k + alpha * (sum of x^2 over the window), in the last dimension.

    Its derivative is written out: autograd's takes twice the time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, size: int, alpha: float, k: float) -> torch.Tensor:
        root = sum_windows_(x * x, size).mul_(alpha).add_(k).rsqrt_()  # d^-1/2
        ctx.save_for_backward(x, root)
        ctx.size, ctx.alpha = size, alpha
        return root.sqrt().mul_(root).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # dL/dx = grad d^-3/4 - 2 * 3/4 * alpha * x * (sum of grad x d^-7/4 over the window)
        x, root = ctx.saved_tensors
        direct = root.sqrt().mul_(root).mul_(grad)
        sums = sum_windows_((direct * x).mul_(root).mul_(root), ctx.size)
        return direct.addcmul_(x, sums, value=-1.5 * ctx.alpha), None, None, None


class ResponseNorm(nn.Module):
    """Local response normalisation within each of `towers` channel groups, [B,C,H,W] to the same.

    Defaults are the paper's, section 3.3; its beta, 0.75, is also the authors' and is fixed. The
    sum over the `size` channels is not divided by `size`, unlike torch.nn.LocalResponseNorm.
    Works and answers in channels_last, in float32 at least.
    """

    def __init__(
        self, towers: int = TOWERS, size: int = 5, alpha: float = 1e-4, k: float = 2.0
    ) -> None:
        super().__init__()
        self.towers, self.size, self.alpha, self.k = towers, size, alpha, k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, channels, height, width = x.shape
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).permute(0, 2, 3, 1)  # NCHW to NHWC
        by_tower = wide.view(images, height, width, self.towers, channels // self.towers)
        y: torch.Tensor = _Normalise.apply(by_tower, self.size, self.alpha, self.k)
        return y.flatten(3).permute(0, 3, 1, 2).to(x.dtype)  # NHW, towers, maps to NCHW


class CounterDropout(nn.Module):
    """Dropout whose mask is a function of (seed, layer, step, sample, unit), section 4.2.

    Training multiplies by zeros and ones, evaluation by the probability to keep a unit; nothing
    is scaled in training. The mask does not depend on how samples are split into batches.
    """

    blocks: torch.Tensor

    def __init__(self, units: int, probability: float, seed: int, layer: int) -> None:
        super().__init__()
        self.units, self.probability = units, probability
        self.key, self.stream = key_words(seed), DROPOUT + layer
        # A buffer: torch.compile's index arithmetic on an arange overflows 32 bits in Philox.
        blocks = torch.arange(math.ceil(units / 4))
        self.register_buffer("blocks", blocks, persistent=False)

    def forward(
        self, x: torch.Tensor, step: int | torch.Tensor, samples: torch.Tensor | None
    ) -> torch.Tensor:
        """x [B,units]; step and samples (int64 [B], indices in the data set) in [0, 2^32)."""
        if not self.training:
            return x * (1.0 - self.probability)
        if samples is None:
            raise ValueError("in training, dropout needs `samples`, the data set indices [B]")
        words = philox4x32_torch((self.blocks, samples[:, None], step, self.stream), self.key)
        # Four words a counter: 4 x [B,blocks] to [B,units], unit = 4 * block + word.
        uniform = torch.stack(words, dim=2).flatten(1)[:, : self.units]
        return x * (uniform >= int(self.probability * TWO_TO_32)).to(x.dtype)


class AlexNet(nn.Module):
    """The paper's network.

    width: factor on every hidden layer's size, which becomes a multiple of 8.
    norm: "lrn" for the paper's response normalisation, "batch" for batch norm in its two places.
    init: "paper", see init_paper, or "he", see init_he; drawn from `seed`, as the dropout masks.
    """

    def __init__(
        self,
        classes: int,
        *,
        seed: int,
        width: float = 1.0,
        norm: Literal["lrn", "batch"] = "lrn",
        dropout: float = 0.5,
        init: Literal["paper", "he"] = "paper",
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5, f6, f7 = (
            max(8, round(size * width / 8) * 8) for size in (96, 256, 384, 384, 256, 4096, 4096)
        )
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.norm1 = ResponseNorm() if norm == "lrn" else nn.BatchNorm2d(c1)
        self.pool1 = nn.MaxPool2d(3, stride=2)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=TOWERS)
        self.norm2 = ResponseNorm() if norm == "lrn" else nn.BatchNorm2d(c2)
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=TOWERS)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=TOWERS)
        self.pool5 = nn.MaxPool2d(3, stride=2)
        self.fc6 = nn.Linear(c5 * POOLED_SIDE**2, f6)
        self.dropout6 = CounterDropout(f6, dropout, seed, layer=0)
        self.fc7 = nn.Linear(f6, f7)
        self.dropout7 = CounterDropout(f7, dropout, seed, layer=1)
        self.fc8 = nn.Linear(f7, classes)
        {"paper": init_paper, "he": init_he}[init](self, torch.Generator().manual_seed(seed))

    def forward(
        self,
        x: torch.Tensor,
        step: int | torch.Tensor = 0,
        samples: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x float32 [B,3,224,224] to logits [B,classes].

        In training, `step` counts updates and `samples` (int64 [B]) are the images' indices in
        the data set: the dropout masks follow from them. Raises ValueError without `samples`.
        """
        # In channels_last from here on: a place's channels lie side by side for the norm.
        x = F.pad(x.contiguous(memory_format=torch.channels_last), (0, PADDING, 0, PADDING))
        x = self.pool1(self.norm1(F.relu(self.conv1(x))))
        x = self.pool2(self.norm2(F.relu(self.conv2(x))))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = self.pool5(F.relu(self.conv5(x)))
        x = x.flatten(1)  # [B,256,6,6] to [B,9216], channel first
        x = self.dropout6(F.relu(self.fc6(x)), step, samples)
        x = self.dropout7(F.relu(self.fc7(x)), step, samples)
        logits: torch.Tensor = self.fc8(x)
        return logits


@torch.no_grad()
def init_paper(net: AlexNet, generator: torch.Generator) -> None:
    """Weights N(0, 0.01); biases 1 in conv2, conv4, conv5, fc6, fc7, else 0 (paper section 5)."""
    for name in LAYERS:
        net.get_parameter(f"{name}.weight").normal_(0.0, 0.01, generator=generator)
        net.get_parameter(f"{name}.bias").fill_(float(name in POSITIVE_START))


@torch.no_grad()
def init_he(net: AlexNet, generator: torch.Generator) -> None:
    """Weights N(0, sqrt(2 / fan_in)), biases 0 (He et al. 2015, equation 10), for batch norm."""
    for name in LAYERS:
        weight = net.get_parameter(f"{name}.weight")
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        net.get_parameter(f"{name}.bias").zero_()
