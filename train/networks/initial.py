"""Initial weights and biases of the eight layers, drawn from a seed.

Batch norm keeps torch's ones and zeros.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from train.networks.layers import AlexNet
from train.recipe import LAYERS, Init

POSITIVE_START = {"conv2", "conv4", "conv5", "fc6", "fc7"}  # biases 1, paper section 5
WIDER_START = {"conv3", "conv4", "conv5"}  # initW=0.03, authors' layers-145.cfg; others 0.01


@torch.no_grad()
def initialise(network: AlexNet, init: Init, seed: int) -> None:
    """Fill the layers in order.

    "paper": weights N(0, 0.01), biases 1 in conv2, conv4, conv5, fc6, fc7, else 0 (section 5).
    "paper-fc-biases-0": the same, but biases 0 in fc6 and fc7, as a replica has it.
    "authors-2012": as "paper", but weights N(0, 0.03) in conv3, conv4, conv5 (layers-145.cfg).
    "he": weights N(0, sqrt(2 / fan-in)), biases 0 (He et al. 2015, equation 10).
    "xavier-normal": weights N(0, sqrt(2 / (fan-in + fan-out))), biases 0 (Glorot, Bengio 2010).
    "torch": weights and biases uniform within 1 / sqrt(fan-in), as torch's layers begin.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in LAYERS:
        weight = network.get_parameter(f"{layer}.weight")
        bias = network.get_parameter(f"{layer}.bias")
        if init == "he":
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
            bias.zero_()
        elif init == "xavier-normal":
            nn.init.xavier_normal_(weight, generator=generator)
            bias.zero_()
        elif init == "torch":
            bound = 1 / math.sqrt(weight[0].numel())
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        else:
            wider = init == "authors-2012" and layer in WIDER_START
            weight.normal_(0.0, 0.03 if wider else 0.01, generator=generator)
            zero = init == "paper-fc-biases-0" and layer.startswith("fc")
            bias.fill_(float(layer in POSITIVE_START and not zero))
