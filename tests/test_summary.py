"""The table of a network's layers."""

from __future__ import annotations

import torch

from train import networks, summary
from train.recipe import load_recipe


def test_the_papers_network_layer_by_layer() -> None:
    with torch.device("meta"):  # at full width, without memory
        network = networks.without_weights(load_recipe("paper"), 1000)
    found = {layer.name: layer for layer in summary.layers(network, crop=224)}
    assert " ".join(found) == (
        "conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 dropout6 fc7 dropout7 fc8"
    )
    assert found["conv1"].shape == (96, 55, 55)
    assert found["conv1"].parameters == 96 * (3 * 11 * 11 + 1)
    assert found["norm1"].kind == "ResponseNorm"
    assert found["pool5"].shape == (256, 6, 6)
    assert (found["fc8"].shape, found["fc8"].parameters) == ((1000,), 4096 * 1000 + 1000)
    assert sum(layer.parameters for layer in found.values()) == 60_965_224


def test_the_network_stays_as_it_is() -> None:
    network = networks.build(load_recipe("demo", ["width=0.02"]), 3).train()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    random = torch.random.get_rng_state()
    first, second = (summary.layers(network, crop=224) for _ in range(2))
    assert first == second  # no hook is left
    assert network.training
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_table_is_aligned_and_ends_with_the_sum() -> None:
    network = networks.build(load_recipe("demo", ["width=0.02"]), 3)
    lines = [*summary.lines(network, crop=224)]
    assert lines[0].split() == ["layer", "kind", "output", "parameters"]
    assert lines[1].split() == ["conv1", "Conv2d", "8", "x", "55", "x", "55", "2,912"]
    assert len({len(line) for line in lines}) == 1
    count = sum(parameter.numel() for parameter in network.parameters())
    assert lines[-1].split() == ["all", f"{count:,}"]
