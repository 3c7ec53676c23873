"""The paper's update, against a float64 simulation of its printed formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from train import optimiser
from train.recipe import load_recipe

# Step: the rate from there on. Two drops, as a plateau makes them.
DROPS = {0: 0.1, 12: 0.01, 21: 0.001}
STEPS = 30


def rates() -> list[float]:
    current, found = 0.0, []
    for step in range(STEPS):
        current = DROPS.get(step, current)
        found.append(current)
    return found


def paper_update(
    start: npt.NDArray[np.float64], curvature: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """v <- 0.9 v - 0.0005 eps w - eps g; w <- w + v, with the loss sum(curvature * w^2) / 2."""
    w, v = start.copy(), np.zeros_like(start)
    for eps in rates():
        g = curvature * w
        v = 0.9 * v - 0.0005 * eps * w - eps * g
        w = w + v
    return w


class _Weights(nn.Module):
    def __init__(self, start: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(start.copy()))


@pytest.fixture
def problem() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    generator = np.random.default_rng(3)
    return generator.normal(size=20), generator.uniform(0.2, 2.0, 20)


def trained(
    problem: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], rescale: bool
) -> npt.NDArray[np.float64]:
    start, curvature = problem
    network = _Weights(start)
    sgd = optimiser.build(network, load_recipe("paper"))
    for rate in rates():
        if rescale:
            optimiser.set_rate(sgd, rate)
        else:
            sgd.param_groups[0]["lr"] = rate
        loss = (torch.from_numpy(curvature) * network.weight**2).sum() / 2
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
    return network.weight.detach().numpy()


def test_equals_the_papers_update_over_two_drops(
    problem: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> None:
    np.testing.assert_allclose(trained(problem, rescale=True), paper_update(*problem), rtol=1e-12)


def test_would_differ_without_rescaled_velocities(
    problem: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> None:
    difference = np.abs(trained(problem, rescale=False) - paper_update(*problem))
    assert difference.max() > 0.01


def test_biases_are_decayed_as_the_printed_update_has_it() -> None:
    network = nn.Linear(3, 2)
    nn.init.ones_(network.bias)
    sgd = optimiser.build(network, load_recipe("paper", ["learning_rate=0.5"]))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sgd.step()
    torch.testing.assert_close(network.bias.detach(), torch.full((2,), 1 - 0.0005 * 0.5))


def test_recipe_values_reach_the_optimiser() -> None:
    settings = ["learning_rate=0.3", "momentum=0.7", "weight_decay=0.02"]
    (group,) = optimiser.build(nn.Linear(2, 2), load_recipe("paper", settings)).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.7, 0.02)
    assert (group["nesterov"], group["dampening"]) == (False, 0)


def test_an_unchanged_rate_leaves_the_velocity_bit_for_bit() -> None:
    network = nn.Linear(4, 4)
    sgd = optimiser.build(network, load_recipe("paper"))
    network(torch.ones(1, 4)).sum().backward()
    sgd.step()
    before = [sgd.state[p]["momentum_buffer"].clone() for p in network.parameters()]
    optimiser.set_rate(sgd, 0.01)
    after = [sgd.state[p]["momentum_buffer"] for p in network.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_rate_can_be_set_before_the_first_step() -> None:
    sgd = optimiser.build(nn.Linear(2, 2), load_recipe("paper"))
    optimiser.set_rate(sgd, 0.5)
    assert sgd.param_groups[0]["lr"] == 0.5
