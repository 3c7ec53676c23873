"""Dropout: masks are words of counters, do not depend on batches, and are scaled in two ways."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from train.networks.dropout import CounterDropout
from train.philox import DROPOUT, philox4x32


def mask(
    layer: int = 0,
    seed: int = 9,
    step: int = 4,
    samples: Sequence[int] = range(16),
    units: int = 4096,
    probability: float = 0.5,
) -> torch.Tensor:
    """True where a unit is kept."""
    dropout = CounterDropout(units, probability, seed, layer)
    out = dropout(torch.full((len(samples), units), 3.0), step, torch.tensor(list(samples)))
    assert set(out.unique().tolist()) == {0.0, 3.0}  # kept units are not scaled
    kept: torch.Tensor = out != 0
    return kept


def test_mask_is_the_words_of_its_counter() -> None:
    kept = mask(layer=1, seed=9 + (7 << 32), step=4, samples=[5], units=10, probability=0.3)
    for unit in range(10):
        word = philox4x32(unit // 4, 5, 4, DROPOUT + 1, 9, 7)[unit % 4]
        assert kept[0, unit] == (word >= int(0.3 * 2**32))


def test_maps_are_masked_unit_by_unit_in_the_order_of_row_column_map() -> None:
    flat = CounterDropout(5 * 3 * 4, 0.5, seed=1, layer=2)
    x = torch.randn(6, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    samples = torch.arange(6)
    got = flat(x, 3, samples)
    assert got.is_contiguous(memory_format=torch.channels_last)
    rows_BHWC = x.permute(0, 2, 3, 1).flatten(1)
    expected = flat(rows_BHWC, 3, samples).view(6, 3, 4, 5).permute(0, 3, 1, 2)
    assert torch.equal(got, expected)
    dropped = (got == 0).flatten(2)
    assert not dropped.all(2).any()  # no map as a whole


def test_mask_does_not_depend_on_the_batch() -> None:
    whole = mask(samples=range(100, 116))
    parts = [mask(samples=range(at, at + 4)) for at in range(100, 116, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole.flip(0), mask(samples=range(115, 99, -1)))


@pytest.mark.parametrize("probability", [0.25, 0.5])
def test_the_wanted_share_is_dropped(probability: float) -> None:
    kept = mask(samples=range(64), probability=probability)
    deviation = np.sqrt(probability * (1 - probability) / kept.numel())
    assert abs(kept.float().mean() - (1 - probability)) < 4 * deviation


def test_masks_differ_by_step_layer_seed_and_sample() -> None:
    masks = [mask(), mask(step=5), mask(layer=1), mask(seed=10), mask(seed=9 + 2**32)]
    masks.append(mask(samples=range(16, 32)))
    for i, one in enumerate(masks):
        for other in masks[:i]:
            agreement = (one == other).float().mean()
            assert abs(agreement - 0.5) < 4 * np.sqrt(0.25 / one.numel())


def test_scaled_in_evaluation_as_the_paper() -> None:
    x = torch.randn(3, 8)
    dropout = CounterDropout(8, 0.25, seed=0, layer=0).eval()
    torch.testing.assert_close(dropout(x, 0, None), 0.75 * x)


def test_scaled_in_training_as_torch() -> None:
    x, samples = torch.randn(3, 8), torch.arange(3)
    dropout = CounterDropout(8, 0.25, 0, 0, "training")
    assert torch.equal(dropout.eval()(x, 0, None), x)
    kept = CounterDropout(8, 0.25, 0, 0)(x, 2, samples)
    torch.testing.assert_close(dropout.train()(x, 2, samples), kept / 0.75)


@pytest.mark.parametrize("scaled", ["evaluation", "training"])
def test_probability_0_changes_nothing(scaled: str) -> None:
    x = torch.randn(2, 8)
    dropout = CounterDropout(8, 0.0, 0, 0, scaled)  # type: ignore[arg-type]
    assert torch.equal(dropout(x, 1, torch.arange(2)), x)
    assert torch.equal(dropout.eval()(x, 1, None), x)


def test_training_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="samples"):
        CounterDropout(8, 0.5, seed=0, layer=0)(torch.ones(1, 8), 0, None)


def test_unit_numbers_are_an_input_of_the_graph() -> None:
    # Inductor (torch 2.15) multiplies a torch.arange within the graph as a 32-bit index.
    assert "blocks" in dict(CounterDropout(8, 0.5, seed=0, layer=0).named_buffers())
