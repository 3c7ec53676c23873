"""The networks: sizes and shapes, and each against a construction of its own from torch's parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from train import networks
from train.networks.layers import AlexNet
from train.networks.torchvision import renamed
from train.recipe import LAYERS, load_recipe

NETWORKS = {
    "paper": 60_965_224,
    "paper-batch-norm": 60_965_928,
    "single-tower": 62_378_344,
    "authors-2012": 60_965_224,
    "batch-norm": 62_397_480,
    "torchvision": 61_100_840,
}
WIDTH = 0.1  # 8, 24, 40, 40, 24 maps and 408 units


def build(name: str, *settings: str, classes: int = 7, width: float = WIDTH) -> AlexNet:
    inputs = ["dropout_on=inputs"] if name == "torchvision" else []
    fixed = [f"network={name}", f"width={width}", "init=he", *inputs]
    return networks.build(load_recipe("paper", [*fixed, *settings]), classes)


def on_meta(name: str) -> AlexNet:
    """At full width, without memory."""
    inputs = ["dropout_on=inputs"] if name == "torchvision" else []
    with torch.device("meta"):
        return networks.without_weights(load_recipe("paper", [f"network={name}", *inputs]), 1000)


def loud(network: AlexNet) -> AlexNet:
    """With biases, and batch norm's figures, that matter."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, generator=generator)
        elif name.startswith("norm"):
            nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, generator=generator)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 1.5, generator=generator)
    return network


def images(count: int, side: int = 224, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 60


# --------------------------------------------------------------------------- sizes and shapes


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_at_full_width(name: str) -> None:
    network = on_meta(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == NETWORKS[name]
    text = networks.__doc__ or ""
    assert f"| {name:16} |" in text
    assert f"{NETWORKS[name]:,}" in text


def shapes_of(network: AlexNet, x: torch.Tensor) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of the layers' outputs, in the order in which they are computed, without norms, dropouts."""
    seen: dict[str, tuple[int, ...]] = {}
    for name, child in network.named_children():
        if name in LAYERS or name.startswith("pool"):
            child.register_forward_hook(
                lambda _m, _i, out, name=name: seen.update({name: tuple(out.shape[1:])})
            )
    with torch.no_grad():
        network.eval()(x)
    yield from seen.items()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [224, 227])
def test_shape_of_every_layer(name: str, side: int) -> None:
    first, second = (64, 192) if name == "torchvision" else (96, 256)
    fourth = 256 if name == "torchvision" else 384
    conv1 = 56 if (name, side) == ("torchvision", 227) else 55  # padded by 2 and 2, not by 0 and 3
    shapes = list(shapes_of(on_meta(name), images(1, side).to("meta")))
    assert shapes == [
        ("conv1", (first, conv1, conv1)),
        ("pool1", (first, 27, 27)),
        ("conv2", (second, 27, 27)),
        ("pool2", (second, 13, 13)),
        ("conv3", (384, 13, 13)),
        ("conv4", (fourth, 13, 13)),
        ("conv5", (256, 13, 13)),
        ("pool5", (256, 6, 6)),
        ("fc6", (4096,)),
        ("fc7", (4096,)),
        ("fc8", (1000,)),
    ]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("width", "maps", "units"), [(0.25, 24, 1024), (0.01, 8, 40)])
def test_narrow_networks_train(name: str, width: float, maps: int, units: int) -> None:
    network = build(name, width=width)
    assert network.conv1.out_channels == (16 if (name, maps) == ("torchvision", 24) else maps)
    assert network.fc7.out_features == units
    logits = network(images(3), step=1, samples=torch.arange(3))
    logits.logsumexp(1).sum().backward()
    assert logits.shape == (3, 7)
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_zeros_are_padded_right_and_bottom_only() -> None:
    network = build("paper").eval()
    nn.init.ones_(network.conv1.weight)
    nn.init.zeros_(network.conv1.bias)
    seen = []
    network.conv1.register_forward_hook(lambda _m, _i, out: seen.append(out[0, 0] / 3))
    with torch.no_grad():
        network(torch.ones(1, 3, 224, 224))
    counts = seen[0]
    assert counts[0, 0] == counts[53, 53] == 11 * 11
    assert counts[54, 0] == counts[0, 54] == 8 * 11  # pixels 216..223 and three of padding
    assert counts[54, 54] == 8 * 8


# --------------------------------------------------------------------------- built another way

Weights = dict[str, torch.Tensor]


def across(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Response norm across maps; torch divides its alpha by the window's 5."""
    return F.local_response_norm(x, 5, alpha=alpha * 5, beta=0.75, k=2.0)


def within(x: torch.Tensor) -> torch.Tensor:
    """The authors' norm within each map: sums over 5x5, each square times 0.001 / 25."""
    sums = F.conv2d((x**2).flatten(0, 1)[:, None], torch.ones(1, 1, 5, 5), padding=2)
    return x / (1 + 0.001 / 25 * sums.view_as(x)) ** 0.75


def pool(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, 3, 2)


def conv(w: Weights, name: str, x: torch.Tensor, half: int | None = None) -> torch.Tensor:
    """A convolution, or the part of it that makes one of the two halves of its maps."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    if half is not None:
        weight, bias = weight.chunk(2)[half], bias.chunk(2)[half]
    stride = 4 if name == "conv1" else 1
    return F.conv2d(x, weight, bias, stride, padding={"conv1": 0, "conv2": 2}.get(name, 1))


def fc(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def at_227(x: torch.Tensor) -> torch.Tensor:
    whole = torch.zeros(len(x), 3, 227, 227)
    whole[:, :, : x.shape[2], : x.shape[3]] = x
    return whole


def halved_fc(w: Weights, maps: torch.Tensor) -> torch.Tensor:
    """The paper's fully connected layers at test."""
    units = 0.5 * F.relu(fc(w, "fc6", maps.flatten(1)))
    return fc(w, "fc8", 0.5 * F.relu(fc(w, "fc7", units)))


def two_towers(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """The paper's figure 2, each tower on its own."""
    x = at_227(x)
    second = []
    for half in (0, 1):
        maps = pool(across(F.relu(conv(w, "conv1", x, half)), 1e-4))
        second.append(pool(across(F.relu(conv(w, "conv2", maps, half)), 1e-4)))
    both = torch.cat(second, 1)  # conv3, the only one that sees both towers
    fifth = []
    for half in (0, 1):
        maps = F.relu(conv(w, "conv3", both, half))
        maps = F.relu(conv(w, "conv4", maps, half))
        fifth.append(pool(F.relu(conv(w, "conv5", maps, half))))
    return halved_fc(w, torch.cat(fifth, 1))


def authors(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """layers-145.cfg from top to bottom, a and b each on its own."""
    x = at_227(x)
    pool2 = []
    for half in (0, 1):
        pool1 = F.relu(pool(across(conv(w, "conv1", x, half), 2e-5)))
        rnorm2 = across(F.relu(conv(w, "conv2", pool1, half)), 2e-5)
        pool2.append(pool(within(rnorm2)))
    pool3 = []
    for half in (0, 1):
        conv3 = F.relu(conv(w, "conv3", torch.cat(pool2, 1), half))
        conv4 = F.relu(conv(w, "conv4", conv3, half))
        pool3.append(F.relu(pool(conv(w, "conv5", conv4, half))))
    return halved_fc(w, torch.cat(pool3, 1))


def single_tower(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """At 227, as replicas build it; dropout on inputs leaves no trace at test."""
    maps = pool(across(F.relu(conv(w, "conv1", x)), 2e-4))
    maps = pool(across(F.relu(conv(w, "conv2", maps)), 2e-4))
    maps = F.relu(conv(w, "conv4", F.relu(conv(w, "conv3", maps))))
    units = pool(F.relu(conv(w, "conv5", maps))).flatten(1)
    return fc(w, "fc8", F.relu(fc(w, "fc7", F.relu(fc(w, "fc6", units)))))


def normed(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    parts = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    shape = (-1,) + (1,) * (x.dim() - 2)
    mean, variance, weight, bias = (part.view(shape) for part in parts)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def paper_batch_norm(w: Weights, x: torch.Tensor) -> torch.Tensor:
    def tower(name: str, maps: torch.Tensor) -> torch.Tensor:
        halves = (conv(w, name, part, half) for half, part in enumerate(maps.chunk(2, 1)))
        return F.relu(torch.cat(list(halves), 1))

    maps = pool(normed(w, "norm1", F.relu(conv(w, "conv1", at_227(x)))))
    maps = F.relu(conv(w, "conv3", pool(normed(w, "norm2", tower("conv2", maps)))))
    return halved_fc(w, pool(tower("conv5", tower("conv4", maps))))


def batch_norm(w: Weights, x: torch.Tensor) -> torch.Tensor:
    maps = pool(normed(w, "norm1", F.relu(conv(w, "conv1", x))))
    maps = pool(normed(w, "norm2", F.relu(conv(w, "conv2", maps))))
    for number in (3, 4, 5):
        maps = normed(w, f"norm{number}", F.relu(conv(w, f"conv{number}", maps)))
    units = normed(w, "norm6", F.relu(fc(w, "fc6", pool(maps).flatten(1))))
    return fc(w, "fc8", normed(w, "norm7", F.relu(fc(w, "fc7", units))))


@pytest.mark.parametrize(
    ("name", "settings", "side", "other"),
    [
        ("paper", [], 224, two_towers),
        ("paper-batch-norm", [], 224, paper_batch_norm),
        ("authors-2012", ["lrn_alpha=2e-5"], 224, authors),
        ("single-tower", ["crop=227", "lrn_alpha=2e-4", "dropout_on=inputs"], 227, single_tower),
        ("batch-norm", ["crop=227"], 227, batch_norm),
    ],
)
def test_values_and_gradients_equal_another_construction(
    name: str,
    settings: list[str],
    side: int,
    other: Callable[[Weights, torch.Tensor], torch.Tensor],
) -> None:
    network, x = loud(build(name, *settings)).eval(), images(2, side)
    direction = torch.randn(2, 7, generator=torch.Generator().manual_seed(4))
    expected = other(network.state_dict(keep_vars=True), x)
    expected_gradients = torch.autograd.grad((expected * direction).sum(), network.parameters())
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        got = network(given)
        assert (got - expected).abs().max() < 1e-5 * expected.abs().max()
    gradients = torch.autograd.grad((got * direction).sum(), network.parameters())
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        assert theirs.abs().max() > 0
        assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    torch.manual_seed(0)
    found: nn.Module = torchvision.models.alexnet(num_classes=5)
    return found


def test_torchvisions_weights_load_and_give_its_values_and_gradients(
    torchvisions: nn.Module,
) -> None:
    network = networks.without_weights(load_recipe("cifar10"), 5)
    network.load_state_dict(renamed(torchvisions.state_dict()))
    x = images(2) / 60
    mine, theirs = network.eval()(x), torchvisions.eval()(x)
    torch.testing.assert_close(mine, theirs)
    mine[:, 0].sum().backward()
    theirs[:, 0].sum().backward()
    torch.testing.assert_close(
        network.get_parameter("conv1.weight").grad,
        torchvisions.get_parameter("features.0.weight").grad,
    )


# --------------------------------------------------------------------------- in training


@pytest.mark.parametrize("name", NETWORKS)
def test_training_without_samples_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="samples"):
        build(name).train()(images(2))


@pytest.mark.parametrize("name", ["paper", "authors-2012", "single-tower", "torchvision"])
def test_training_does_not_depend_on_the_batch(name: str) -> None:
    network, x, samples = build(name), images(4), torch.tensor([7, 1, 3, 9])
    step = torch.tensor(6)
    whole = network(x, step, samples)
    parts = torch.cat([network(x[:1], step, samples[:1]), network(x[1:], step, samples[1:])])
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(whole, network(x, step + 1, samples), rtol=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_dropout_layer_has_masks_of_its_own(name: str) -> None:
    dropouts = [child for key, child in build(name).named_children() if key.startswith("dropout")]
    streams = [child.stream for child in dropouts]
    assert len(streams) == (4 if name == "batch-norm" else 2)
    assert len(set(streams)) == len(streams)


def test_the_two_ways_of_dropout_differ_by_place_and_scale() -> None:
    outputs, inputs = build("paper"), build("paper", "dropout_on=inputs")
    samples = torch.arange(2)
    kept: dict[str, torch.Tensor] = {}
    for name, network in (("outputs", outputs), ("inputs", inputs)):
        network.fc7.register_forward_pre_hook(
            lambda _m, given, name=name: kept.update({name: given[0]})
        )
        network(images(2), 1, samples)
    assert outputs.dropout6.units == outputs.fc6.out_features
    assert inputs.dropout6.units == inputs.fc6.in_features
    assert (kept["outputs"] == 0).float().mean() > 0.4
    assert (kept["inputs"] == 0).float().mean() > 0.4


@pytest.mark.soak
@pytest.mark.parametrize("name", ["authors-2012", "batch-norm"])
def test_a_compiled_network_trains_as_the_eager_one(name: str) -> None:
    # In float64: batch norm of few samples multiplies what is rounded.
    network, x, samples = build(name, width=0.05).double(), images(6).double(), torch.arange(6)
    direction = torch.randn(6, 7, generator=torch.Generator().manual_seed(4))
    results = []
    for run in (network, torch.compile(network, fullgraph=True)):
        logits = run(x, torch.tensor(5), samples)
        gradients = torch.autograd.grad((logits * direction).sum(), network.parameters())
        results.append([logits.detach(), *gradients])
    for eager, compiled in zip(*results, strict=True):
        assert (eager - compiled).abs().max() < 1e-9 * eager.abs().max()
