"""Initial weights and biases, drawn from the seed alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from train import networks
from train.networks.layers import AlexNet
from train.recipe import LAYERS, load_recipe

BIASES_OF_ONE = {"conv2", "conv4", "conv5", "fc6", "fc7"}  # paper, section 5
WIDTH = 0.25


def build(init: str, *settings: str) -> AlexNet:
    fixed = [f"init={init}", f"width={WIDTH}", "network=single-tower"]
    return networks.build(load_recipe("paper", [*fixed, *settings]), 50)


def assert_normal(weight: torch.Tensor, deviation: float) -> None:
    tolerance = 5 * deviation / math.sqrt(weight.numel())
    assert abs(weight.mean()) < tolerance
    assert abs(weight.std() - deviation) < tolerance
    share = (weight.abs() < deviation).float().mean()  # 68.3 % of a normal distribution
    assert share == pytest.approx(0.6827, abs=5 * 0.4654 / math.sqrt(weight.numel()))


@pytest.mark.parametrize(
    ("init", "wide", "ones"),
    [
        ("paper", 0.01, BIASES_OF_ONE),
        ("paper-fc-biases-0", 0.01, {"conv2", "conv4", "conv5"}),
        ("authors-2012", 0.03, BIASES_OF_ONE),
    ],
)
def test_fixed_deviations(init: str, wide: float, ones: set[str]) -> None:
    network = build(init)
    for name in LAYERS:
        deviation = wide if name in ("conv3", "conv4", "conv5") else 0.01
        assert_normal(network.get_parameter(f"{name}.weight"), deviation)
        assert (network.get_parameter(f"{name}.bias") == float(name in ones)).all()


def test_he() -> None:
    network = build("he")
    for name in LAYERS:
        weight = network.get_parameter(f"{name}.weight")
        assert_normal(weight, math.sqrt(2 / weight[0].numel()))
        assert (network.get_parameter(f"{name}.bias") == 0).all()


def test_xavier_normal() -> None:
    network = build("xavier-normal")
    for name in LAYERS:
        weight = network.get_parameter(f"{name}.weight")
        assert_normal(weight, math.sqrt(2 / (weight[0].numel() + weight[:, 0].numel())))
        assert (network.get_parameter(f"{name}.bias") == 0).all()


def test_torchs_own() -> None:
    """Within the bounds of torch's layers, and filling them."""
    network = build("torch")
    for name in LAYERS:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        bound = 1 / math.sqrt(layer.weight[0].numel())
        before = layer.weight.clone()
        torch.manual_seed(1)
        layer.reset_parameters()
        for values in (before, layer.weight):
            assert bound * 0.99 < values.abs().max() <= bound
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert build("torch").get_parameter(f"{name}.bias").abs().max() <= bound


@pytest.mark.parametrize("init", ["paper", "he", "xavier-normal", "torch"])
def test_weights_follow_from_the_seed_alone(init: str) -> None:
    states = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(global_seed)
        states.append(build(init, f"seed={seed}").fc7.weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_batch_norm_begins_as_torchs() -> None:
    network = build("he", "network=batch-norm")
    for name, parameter in network.named_parameters():
        if name.startswith("norm"):
            assert (parameter == float(name.endswith("weight"))).all()
