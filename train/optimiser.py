"""The paper's update (section 5):

    v <- momentum * v - weight_decay * rate * w - rate * gradient
    w <- w + v

torch.optim.SGD keeps b = -v / rate instead of v and gives the same weights while the rate is
constant. When the rate changes, v keeps its scale in the paper's update and b does in torch's;
set_rate() therefore multiplies b by old rate / new rate.
"""

from __future__ import annotations

import torch
from torch import nn

from train.recipe import Recipe


def build(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over all parameters, biases decayed too as the printed update has it."""
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def set_rate(optimiser: torch.optim.SGD, rate: float) -> None:
    """Change the learning rate; the velocity v keeps its scale."""
    for group in optimiser.param_groups:
        ratio = group["lr"] / rate
        group["lr"] = rate
        if ratio == 1.0:
            continue
        for parameter in group["params"]:
            buffer = optimiser.state[parameter].get("momentum_buffer")
            if buffer is not None:
                buffer.mul_(ratio)
