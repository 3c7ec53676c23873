"""The paper's update (section 5):

    v <- momentum * v - weight_decay * rate * w - rate * gradient
    w <- w + v

torch.optim.SGD keeps b = -v / rate instead of v and gives the same weights while the rate is
constant. When the rate changes, v keeps its scale in the paper's update and b does in torch's;
set_rates() therefore multiplies b by old rate / new rate, unless the recipe wants it torch's way.

Parameters with a rate or decay of their own are groups of their own: those of the layers that the
recipe's `layer_rates` name, and biases where the recipe treats them in another way than weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from train.recipe import Recipe


class LayerwiseSGD(torch.optim.SGD):
    """torch's SGD, but a group at rate 0 is frozen: no update, no decay, its velocity stays.

    As the authors' code, which leaves such a layer out (weights.cu, Weights::update).
    """

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            # A tensor, which is not to be read, where train.graphs records: of no frozen layer.
            if not isinstance(group["lr"], torch.Tensor) and group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None  # torch's SGD passes over such a parameter
        return super().step(closure)


def build(network: nn.Module, recipe: Recipe) -> LayerwiseSGD:
    """SGD over all parameters, at the rates of the recipe's first epoch."""
    layers = {row.layer for row in recipe.layer_rates}
    biases_apart = (
        recipe.bias_rate_factor != 1 or not recipe.bias_rate_falls or not recipe.bias_decay
    )
    grouped: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        layer, _, kind = name.rpartition(".")
        key = (layer if layer in layers else "", biases_apart and kind == "bias")
        grouped.setdefault(key, []).append(parameter)
    sgd = LayerwiseSGD(
        [
            {
                "params": parameters,
                "layer": layer,  # "" for those without a rate of their own
                "biases": biases,  # treated as biases
                "velocity_rate": recipe.learning_rate,  # b = -v / velocity_rate
                "weight_decay": 0.0 if biases and not recipe.bias_decay else recipe.weight_decay,
            }
            for (layer, biases), parameters in grouped.items()
        ],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,  # one pass over the memory of weights, gradients and velocity
    )
    for parameter in network.parameters():
        # Its first step would leave them as the memory is, where fp16's scaler finds an overflow.
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    set_rates(sgd, recipe, 0.0, recipe.learning_rate)
    return sgd


def set_rates(sgd: torch.optim.SGD, recipe: Recipe, epoch: float, rate: float) -> None:
    """Change every group's learning rate.

    epoch: epochs done so far, with the part of the running one; rate: the schedule's, above 0.
    """
    for group in sgd.param_groups:
        group["lr"] = _group_rate(recipe, group["layer"], group["biases"], epoch, rate)
        if group["lr"] == 0:
            continue
        ratio = group["velocity_rate"] / group["lr"]
        group["velocity_rate"] = group["lr"]
        if ratio == 1.0 or recipe.velocity == "scaled":
            continue
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"].mul_(ratio)


def _group_rate(recipe: Recipe, layer: str, biases: bool, epoch: float, rate: float) -> float:
    rows = [row for row in recipe.layer_rates if row.layer == layer and epoch >= row.from_epoch]
    weights = max(rows, key=lambda row: row.from_epoch).rate if rows else rate
    if not biases or weights == 0:
        return weights
    return recipe.bias_rate_factor * (weights if recipe.bias_rate_falls else recipe.learning_rate)
