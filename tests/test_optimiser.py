"""The update against the paper's printed formula in float64 and torch's SGD; rates by layer."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from train import networks, optimiser
from train.recipe import LayerRate, Recipe, load_recipe

# Step: the rate from there on. Two drops, as a plateau makes them.
DROPS = {0: 0.1, 12: 0.01, 21: 0.001}
STEPS = 30
CHECKED = [0, 1, 11, 12, 13, 20, 21, 22, 29]  # at the start, around the drops, at the end

Array = npt.NDArray[np.float64]


def rates() -> list[float]:
    current, found = 0.0, []
    for step in range(STEPS):
        current = DROPS.get(step, current)
        found.append(current)
    return found


def paper_update(start: Array, curvature: Array) -> list[Array]:
    """v <- 0.9 v - 0.0005 eps w - eps g; w <- w + v, with the loss sum(curvature * w^2) / 2."""
    w, v = start.copy(), np.zeros_like(start)
    found = []
    for eps in rates():
        g = curvature * w
        v = 0.9 * v - 0.0005 * eps * w - eps * g
        w = w + v
        found.append(w)
    return found


class _Weights(nn.Module):
    def __init__(self, start: Array) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(start.copy()))


@pytest.fixture
def problem() -> tuple[Array, Array]:
    generator = np.random.default_rng(3)
    return generator.normal(size=20), generator.uniform(0.2, 2.0, 20)


def trained(
    problem: tuple[Array, Array],
    build: Callable[[nn.Module], torch.optim.SGD],
    set_rate: Callable[[torch.optim.SGD, float], None],
) -> list[Array]:
    """The weights after each step."""
    start, curvature = problem
    network = _Weights(start)
    sgd = build(network)
    found = []
    for rate in rates():
        set_rate(sgd, rate)
        loss = (torch.from_numpy(curvature) * network.weight**2).sum() / 2
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        found.append(network.weight.detach().numpy().copy())
    return found


def ours(problem: tuple[Array, Array], *settings: str) -> list[Array]:
    recipe = load_recipe("paper", ["learning_rate=0.1", *settings])
    return trained(
        problem,
        lambda network: optimiser.build(network, recipe),
        lambda sgd, rate: optimiser.set_rates(sgd, recipe, 0.0, rate),
    )


def torchs(problem: tuple[Array, Array], nesterov: bool = False) -> list[Array]:
    def set_rate(sgd: torch.optim.SGD, rate: float) -> None:
        sgd.param_groups[0]["lr"] = rate

    return trained(
        problem,
        lambda network: torch.optim.SGD(
            network.parameters(), 0.1, 0.9, weight_decay=0.0005, nesterov=nesterov
        ),
        set_rate,
    )


@pytest.mark.parametrize("after", CHECKED)
def test_equals_the_papers_update_over_two_drops(problem: tuple[Array, Array], after: int) -> None:
    np.testing.assert_allclose(ours(problem)[after], paper_update(*problem)[after], rtol=1e-12)


def test_would_differ_without_kept_velocities(problem: tuple[Array, Array]) -> None:
    kept, scaled = ours(problem), ours(problem, "velocity=scaled")
    for after in range(12):  # until the first drop
        assert np.array_equal(kept[after], scaled[after])
    assert np.abs(kept[-1] - scaled[-1]).max() > 0.01


@pytest.mark.parametrize("nesterov", [False, True])
def test_scaled_velocities_are_torchs(problem: tuple[Array, Array], nesterov: bool) -> None:
    got = ours(problem, "velocity=scaled", f"nesterov={str(nesterov).lower()}")
    for mine, theirs in zip(got, torchs(problem, nesterov), strict=True):
        assert np.array_equal(mine, theirs)


# --------------------------------------------------------------------------- biases, layers


def stepped(recipe: Recipe, network: nn.Module, epochs: list[float], rate: float) -> nn.Module:
    """`network` after a step with gradients of 1 at each of the epochs."""
    sgd = optimiser.build(network, recipe)
    for epoch in epochs:
        optimiser.set_rates(sgd, recipe, epoch, rate)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        sgd.step()
    return network


def test_biases_are_decayed_as_the_printed_update_has_it_or_left_alone() -> None:
    for setting, decay in (("bias_decay=true", 0.0005), ("bias_decay=false", 0.0)):
        recipe = load_recipe("paper", ["learning_rate=0.5", setting])
        network = nn.Linear(3, 2)
        nn.init.ones_(network.bias)
        stepped(recipe, network, [0.0], 0.5)
        torch.testing.assert_close(
            network.bias.detach(), torch.full((2,), 1 - 0.5 * (1 + decay * 1))
        )


@pytest.mark.parametrize(("falls", "bias_rate"), [("true", 0.002), ("false", 0.02)])
def test_biases_have_their_factor_of_the_rate_or_of_the_first_one(
    falls: str, bias_rate: float
) -> None:
    settings = ["bias_rate_factor=2", f"bias_rate_falls={falls}", "weight_decay=0"]
    network = nn.Linear(3, 2)
    before = copy.deepcopy(network)
    stepped(load_recipe("paper", settings), network, [30.0], 0.001)
    torch.testing.assert_close(before.bias - network.bias, torch.full((2,), bias_rate))
    torch.testing.assert_close(before.weight - network.weight, torch.full((2, 3), 0.001))


def authors() -> tuple[Recipe, nn.Module]:
    recipe = load_recipe("authors-2012", ["width=0.01", "init=he"])
    return recipe, networks.build(recipe, 2)


def rates_of(recipe: Recipe, network: nn.Module, epoch: float, rate: float) -> dict[str, float]:
    """By parameter name."""
    sgd = optimiser.build(network, recipe)
    optimiser.set_rates(sgd, recipe, epoch, rate)
    by_parameter = {
        id(parameter): group["lr"] for group in sgd.param_groups for parameter in group["params"]
    }
    return {name: by_parameter[id(value)] for name, value in network.named_parameters()}


@pytest.mark.parametrize(
    ("epoch", "rate", "conv1", "conv1_bias", "others"),
    [
        (0.0, 0.01, 0.01, 0.02, 0.01),
        (66.99, 1e-4, 1e-4, 0.02, 1e-4),
        (67.0, 1e-4, 1e-5, 0.02, 1e-4),
        (71.99, 1e-4, 1e-5, 0.02, 1e-4),
        (72.0, 1e-4, 0.0, 0.0, 1e-4),
        (90.0, 1e-5, 0.0, 0.0, 1e-5),
    ],
)
def test_rates_by_layer_and_epoch_of_the_authors_log(
    epoch: float, rate: float, conv1: float, conv1_bias: float, others: float
) -> None:
    got = rates_of(*authors(), epoch, rate)
    assert got.pop("conv1.weight") == conv1
    assert got.pop("conv1.bias") == conv1_bias
    for name, value in got.items():
        assert value == (0.02 if name.endswith("bias") else others), name


def test_a_frozen_layer_does_not_change_and_keeps_its_velocity() -> None:
    recipe, network = authors()
    sgd = optimiser.build(network, recipe)

    def step(epoch: float) -> None:
        optimiser.set_rates(sgd, recipe, epoch, 1e-4)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        sgd.step()

    conv1 = network.get_parameter("conv1.weight")
    step(60.0)
    step(67.0)
    before, velocity = conv1.clone(), sgd.state[conv1]["momentum_buffer"].clone()
    others = network.get_parameter("conv2.weight").clone()
    step(72.0)
    step(80.0)
    assert torch.equal(conv1, before)
    assert torch.equal(sgd.state[conv1]["momentum_buffer"], velocity)
    assert not torch.equal(network.get_parameter("conv2.weight"), others)


def test_a_layer_that_thaws_goes_on_with_the_velocity_it_had() -> None:
    """v is carried over the frozen epochs, whatever the rate is afterwards."""
    rows = (LayerRate("conv1", 1, 0.0), LayerRate("conv1", 2, 0.5))
    recipe = dataclasses.replace(load_recipe("paper"), layer_rates=rows, weight_decay=0.0)
    network = nn.Sequential()
    network.add_module("conv1", nn.Linear(1, 1, bias=False))
    weight = network.get_parameter("conv1.weight")
    nn.init.zeros_(weight)
    stepped(recipe, network, [0.0, 1.0, 1.5, 2.0], 0.01)
    # v = -0.01, frozen twice, then 0.9 v - 0.5
    assert weight.item() == pytest.approx(-0.01 + (0.9 * -0.01 - 0.5), rel=1e-6)


def test_the_state_resumes_bit_for_bit_in_the_middle_of_the_authors_rates() -> None:
    recipe, network = authors()
    sgd = optimiser.build(network, recipe)

    def steps(net: nn.Module, of: torch.optim.SGD, epochs: list[float]) -> list[torch.Tensor]:
        for epoch in epochs:
            optimiser.set_rates(of, recipe, epoch, 1e-4 if epoch < 79 else 1e-5)
            generator = torch.Generator().manual_seed(int(epoch * 10))
            for parameter in net.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            of.step()
        return [parameter.detach().clone() for parameter in net.parameters()]

    steps(network, sgd, [60.0, 67.0, 71.0, 72.0, 73.0])
    resumed_network = copy.deepcopy(network)
    resumed = optimiser.build(resumed_network, recipe)
    resumed.load_state_dict(copy.deepcopy(sgd.state_dict()))
    later = [74.0, 78.5, 79.0, 80.0]
    for one, two in zip(
        steps(network, sgd, later), steps(resumed_network, resumed, later), strict=True
    ):
        assert torch.equal(one, two)


# --------------------------------------------------------------------------- groups


def test_recipe_values_reach_the_optimiser() -> None:
    settings = ["learning_rate=0.3", "momentum=0.7", "weight_decay=0.02", "nesterov=true"]
    (group,) = optimiser.build(nn.Linear(2, 2), load_recipe("paper", settings)).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.7, 0.02)
    assert (group["nesterov"], group["dampening"]) == (True, 0)


def test_there_are_no_more_groups_than_the_recipe_asks_for() -> None:
    recipe, network = authors()
    assert len(optimiser.build(network, load_recipe("paper")).param_groups) == 1
    groups = optimiser.build(network, recipe).param_groups
    assert {(group["layer"], group["biases"]) for group in groups} == {
        ("", False),
        ("", True),
        ("conv1", False),
        ("conv1", True),
    }
    counted = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(counted) == sorted(id(parameter) for parameter in network.parameters())


def test_an_unchanged_rate_leaves_the_velocity_bit_for_bit() -> None:
    network, recipe = nn.Linear(4, 4), load_recipe("paper")
    sgd = optimiser.build(network, recipe)
    network(torch.ones(1, 4)).sum().backward()
    sgd.step()
    before = [sgd.state[p]["momentum_buffer"].clone() for p in network.parameters()]
    optimiser.set_rates(sgd, recipe, 0.5, 0.01)
    after = [sgd.state[p]["momentum_buffer"] for p in network.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_rate_can_be_set_before_the_first_step() -> None:
    recipe = load_recipe("paper")
    sgd = optimiser.build(nn.Linear(2, 2), recipe)
    optimiser.set_rates(sgd, recipe, 0.0, 0.5)
    assert sgd.param_groups[0]["lr"] == 0.5


def test_an_overflow_in_the_first_update_leaves_no_trace() -> None:
    """A velocity that the first step would have made must not be what the memory held before."""
    network = nn.Linear(3, 2)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    torch.use_deterministic_algorithms(True)  # makes fresh memory hold NaN
    try:
        sgd = optimiser.build(network, load_recipe("paper", ["weight_decay=0"]))
        scaler = torch.amp.GradScaler("cpu")
        for scaled in (float("inf"), 0.0):
            for parameter in network.parameters():
                parameter.grad = torch.full_like(parameter, scaled)
            scaler.scale(torch.ones(()))  # it begins with the first loss
            scaler.unscale_(sgd)
            scaler.step(sgd)
            scaler.update()
    finally:
        torch.use_deterministic_algorithms(False)
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name]), name


@pytest.mark.parametrize(
    "name", ["paper", "demo", "steplr-100", "authors-2012", "caltech256-bn", "cifar10"]
)
def test_weights_gradients_and_velocities_lie_alike_in_memory(name: str) -> None:
    """The fused update takes them place by place, whatever their strides say."""
    recipe = load_recipe(name, ["width=0.05"])
    network = networks.build(recipe, 3).to(memory_format=torch.channels_last)
    sgd = optimiser.build(network, recipe)
    images = torch.randn(2, 3, recipe.crop, recipe.crop)
    network(images, 0, torch.arange(2)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None
        velocity = sgd.state[parameter]["momentum_buffer"]
        assert parameter.grad.stride() == velocity.stride() == parameter.stride(), key
