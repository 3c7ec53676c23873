"""Response normalisation, against torch's own, its printed formula, and compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._inductor import metrics
from torch.nn import functional as F

from train.networks.response_norm import ResponseNorm, SpatialResponseNorm

PRINTED = 1e-4  # alpha of the paper, section 3.3


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype) * 100


def values_and_gradient(
    norm: nn.Module, x: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    y = norm(x)
    y.backward(grad)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
@pytest.mark.parametrize("alpha", [PRINTED, 2e-5])
def test_equals_torch_on_one_tower(
    alpha: float, dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format
) -> None:
    x, grad = (
        random(2, 48, 9, 7, seed=seed, dtype=dtype).contiguous(memory_format=memory_format)
        for seed in (0, 1)
    )
    torchs = nn.LocalResponseNorm(5, alpha=alpha * 5, beta=0.75, k=2.0)  # it divides alpha by 5
    expected = values_and_gradient(torchs, x, grad)
    got = values_and_gradient(ResponseNorm(1, alpha), x, grad)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


def test_is_the_printed_formula() -> None:
    x = torch.arange(1.0, 7.0).reshape(1, 6, 1, 1) * 100
    y = ResponseNorm(1, PRINTED)(x).flatten()
    squares = x.flatten() ** 2
    assert y[3] == pytest.approx(float(x[0, 3] / (2 + 1e-4 * squares[1:6].sum()) ** 0.75), rel=1e-6)
    assert y[0] == pytest.approx(float(x[0, 0] / (2 + 1e-4 * squares[:3].sum()) ** 0.75), rel=1e-6)


def test_within_a_map_is_a_sum_over_5x5_places_and_fewer_at_edges() -> None:
    x = random(2, 3, 7, 6).double()
    y = SpatialResponseNorm()(x)
    for row, column in ((0, 0), (3, 3), (6, 2), (5, 5)):
        window = x[1, 2, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        denominator = (1 + 0.001 / 25 * (window**2).sum()) ** 0.75
        assert y[1, 2, row, column] == pytest.approx(float(x[1, 2, row, column] / denominator))


@pytest.mark.parametrize("norm", [ResponseNorm(2, 0.1), SpatialResponseNorm()])
def test_gradient(norm: nn.Module) -> None:
    # ResponseNorm's alpha, and the spatial norm's input, make a response whose derivative matters.
    scale = 1 if isinstance(norm, ResponseNorm) else 100
    x = random(2, 12, 3, 4, dtype=torch.float64) / 100 * scale
    assert torch.autograd.gradcheck(norm, x.requires_grad_())


def test_does_not_mix_towers() -> None:
    x = random(1, 16, 4, 4)
    changed = x.clone()
    changed[:, 8:] *= 3
    norm = ResponseNorm(2, PRINTED)
    assert torch.equal(norm(x)[:, :8], norm(changed)[:, :8])
    apart = torch.cat([ResponseNorm(1, PRINTED)(tower) for tower in x.chunk(2, 1)], 1)
    assert torch.equal(norm(x), apart)


@pytest.mark.parametrize("norm", [ResponseNorm(2, PRINTED), SpatialResponseNorm()])
def test_keeps_channels_last_and_dtype(norm: nn.Module) -> None:
    x = random(2, 16, 5, 5).contiguous(memory_format=torch.channels_last)
    y = norm(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("norm", [ResponseNorm(2, PRINTED), SpatialResponseNorm()])
def test_is_computed_in_float32_under_autocast(norm: nn.Module) -> None:
    """Squares of 3000 are beyond float16, and bfloat16 would round the sums to 8 bits."""
    x = random(1, 16, 5, 5) * 30
    for dtype in (torch.float16, torch.bfloat16):
        rounded = x.to(dtype)
        grad = random(1, 16, 5, 5, seed=1).to(dtype)
        with torch.autocast("cpu", dtype=dtype):
            got = values_and_gradient(norm, rounded, grad)
        expected = values_and_gradient(norm, rounded.float(), grad.float())
        for ours, exact in zip(got, expected, strict=True):
            assert torch.equal(ours, exact.to(dtype))


class _Between(nn.Module):
    """The norms where they stand: after a ReLU, before a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.across, self.within = ResponseNorm(2, PRINTED), SpatialResponseNorm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.within(self.across(F.relu(x))), 3, 2)


@pytest.mark.soak
def test_compiles_to_one_kernel_forward_and_two_back() -> None:
    """With the ReLU before it. torch's own, which pools, takes a pass over memory for each step."""
    norm = ResponseNorm(2, PRINTED)
    compiled = torch.compile(lambda x: norm(F.relu(x)), fullgraph=True)
    x = random(2, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    metrics.reset()
    y = compiled(x.requires_grad_())
    assert metrics.generated_kernel_count == 1
    y.backward(torch.ones_like(y))
    assert metrics.generated_kernel_count <= 3


@pytest.mark.soak
def test_compiles_whole_and_gives_the_same() -> None:
    between = _Between()
    x = random(2, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    grad = random(2, 16, 4, 4, seed=1)
    compiled = torch.compile(between, fullgraph=True)
    expected = values_and_gradient(between, x, grad)
    for ours, theirs in zip(values_and_gradient(compiled, x, grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
