"""A network layer by layer: what each gives for one picture, and how many parameters it has.

Layers are the network's modules, in the order in which they are computed; ReLUs are none here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Layer:
    """One module; shape: of its output for one picture, without the batch."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layers(network: nn.Module, crop: int) -> list[Layer]:
    """For a picture of crop x crop pixels. The network's mode and buffers stay as they are."""
    found: list[Layer] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in module.parameters())
            shape = tuple(output.shape[1:])
            found.append(Layer(name, type(module).__name__, shape, parameters))

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    was_training = network.training
    try:
        with torch.inference_mode():
            network.eval()(example(network, crop))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def example(network: nn.Module, crop: int) -> torch.Tensor:
    """A black picture where the network is, float32 [1,3,crop,crop]."""
    return torch.zeros(1, 3, crop, crop, device=next(network.parameters()).device)


def lines(network: nn.Module, crop: int) -> Iterator[str]:
    """A table for people, 3 x crop x crop to logits."""
    rows = [("layer", "kind", "output", "parameters")]
    found = layers(network, crop)
    for layer in found:
        shape = " x ".join(map(str, layer.shape))
        rows.append((layer.name, layer.kind, shape, f"{layer.parameters:,}"))
    rows.append(("all", "", "", f"{sum(layer.parameters for layer in found):,}"))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, kind, shape, count in rows:
        yield f"{name:{wide[0]}}  {kind:{wide[1]}}  {shape:{wide[2]}}  {count:>{wide[3]}}"
