"""Response normalisation, y = x (k + alpha * sum of x^2 over a window)^-3/4.

Across the maps of a tower: paper section 3.3. Within each map: the authors' code, layer type
`rnorm`. The exponent 0.75 is the paper's beta and the authors' `pow` in both, and is fixed. The
sum is not divided by the window's size, unlike that of torch.nn.LocalResponseNorm, and at an edge
it has fewer terms and the same alpha.

One formulation serves eager CPU, where the derivative written out and the in-place sums halve the
time, and torch.compile, which traces both directions, turns the in-place steps into values and
fuses them with what stands before and after.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def sum_windows_(values: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    """Replace values by sums over `size` (odd) neighbours along `dim`, fewer at its ends.

    In place: on a CPU, memory fresh from the system costs more than the additions.
    """
    count, reach = values.shape[dim], size // 2
    padded = F.pad(values, [0, 0] * (values.dim() - 1 - dim) + [reach, reach])
    for offset in range(size):
        if offset != reach:
            values += padded.narrow(dim, offset, count)
    return values


class _Normalise(torch.autograd.Function):
    """y = x d^-3/4 with d = k + alpha * (sum of x^2 over `size` places along each of `dims`).

    Its derivative is written out: autograd's takes twice the time on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, dims: tuple[int, ...], size: int, alpha: float, k: float
    ) -> torch.Tensor:
        sums = x * x
        for dim in dims:
            sum_windows_(sums, size, dim)
        root = sums.mul_(alpha).add_(k).rsqrt_()  # d^-1/2
        ctx.save_for_backward(x, root)
        ctx.dims, ctx.size, ctx.alpha = dims, size, alpha
        return root.sqrt().mul_(root).mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # dL/dx = grad d^-3/4 - 2 * 3/4 * alpha * x * (sum of grad x d^-7/4 over the window)
        x, root = ctx.saved_tensors
        direct = root.sqrt().mul_(root).mul_(grad)
        sums = (direct * x).mul_(root).mul_(root)
        for dim in ctx.dims:
            sum_windows_(sums, ctx.size, dim)
        return direct.addcmul_(x, sums, value=-1.5 * ctx.alpha), None, None, None, None


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """bfloat16 and float16 as float32: squares of grey levels are beyond float16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ResponseNorm(nn.Module):
    """Across the maps of each of `towers` channel groups, [B,C,H,W] to the same.

    alpha: of one squared term. k and size: the paper's and the authors' (`minDiv`, `size`).
    Works and answers in channels_last, in float32 at least.
    """

    def __init__(self, towers: int, alpha: float, size: int = 5, k: float = 2.0) -> None:
        super().__init__()
        self.towers, self.alpha, self.size, self.k = towers, alpha, size, k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, channels, height, width = x.shape
        wide = at_least_float32(x).permute(0, 2, 3, 1)  # NCHW to NHWC
        by_tower = wide.view(images, height, width, self.towers, channels // self.towers)
        y: torch.Tensor = _Normalise.apply(by_tower, (4,), self.size, self.alpha, self.k)
        return y.flatten(3).permute(0, 3, 1, 2).to(x.dtype)  # NHW, towers, maps to NCHW


class SpatialResponseNorm(nn.Module):
    """Within each map, over 5x5 places, [B,C,H,W] to the same, in float32 at least.

    Source: the authors' layers cnorm2a and cnorm2b: `scale` 0.001 (layer-params-145.cfg) divided
    by the window's 25 places (layer.py, NormLayerParser), and 1 in place of `minDiv`, which this
    layer type does not take.
    """

    SIZE, ALPHA, K = 5, 0.001 / 25, 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Normalise.apply(
            at_least_float32(x), (2, 3), self.SIZE, self.ALPHA, self.K
        )
        return y.to(x.dtype)
