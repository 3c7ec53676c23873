"""The network: the paper's shapes, initial weights and arithmetic, against explicit two towers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from train.network import LAYERS, AlexNet, CounterDropout, ResponseNorm
from train.philox import DROPOUT, philox4x32

BIASES_OF_ONE = {"conv2", "conv4", "conv5", "fc6", "fc7"}  # paper, section 5


@pytest.fixture(scope="module")
def paper_net():
    return AlexNet(1000, seed=0)


@pytest.fixture(scope="module")
def loud_net():
    """Paper's layers with weights and biases large enough for every layer to matter."""
    net = AlexNet(1000, seed=1, init="he")
    generator = torch.Generator().manual_seed(2)
    for name in LAYERS:
        nn.init.normal_(net.get_parameter(f"{name}.bias"), generator=generator)
    return net.eval()


def images(count, seed=3):
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(seed)) * 60


def outputs_of(net, x, **arguments):
    """The output of every direct child, by name."""
    seen = {}
    hooks = [
        child.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, child in net.named_children()
    ]
    with torch.no_grad():
        net(x, **arguments)
    for hook in hooks:
        hook.remove()
    return seen


# --------------------------------------------------------------------------- layers


def test_parameter_count(paper_net):
    assert sum(parameter.numel() for parameter in paper_net.parameters()) == 60_965_224


def test_output_shape_of_every_layer(paper_net):
    shapes = {
        name: tuple(out.shape[1:]) for name, out in outputs_of(paper_net.eval(), images(1)).items()
    }
    assert shapes == {
        "conv1": (96, 55, 55),
        "norm1": (96, 55, 55),
        "pool1": (96, 27, 27),
        "conv2": (256, 27, 27),
        "norm2": (256, 27, 27),
        "pool2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096,),
        "dropout6": (4096,),
        "fc7": (4096,),
        "dropout7": (4096,),
        "fc8": (1000,),
    }


def two_towers(net, x):
    """The paper's figure 2, each tower on its own, from torch's primitives and `net`'s weights."""
    weight = {name: net.get_parameter(f"{name}.weight") for name in LAYERS}
    bias = {name: net.get_parameter(f"{name}.bias") for name in LAYERS}
    respond = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # torch divides alpha by 5
    pool = nn.MaxPool2d(3, 2)
    padded = torch.zeros(len(x), 3, 227, 227)
    padded[:, :, :224, :224] = x

    def tower(name, maps, which, padding):
        half = len(weight[name]) // 2
        mine = slice(which * half, (which + 1) * half)
        return F.relu(F.conv2d(maps, weight[name][mine], bias[name][mine], padding=padding))

    second_layer = []
    for which in (0, 1):
        mine = slice(which * 48, (which + 1) * 48)
        maps = F.relu(F.conv2d(padded, weight["conv1"][mine], bias["conv1"][mine], stride=4))
        second_layer.append(pool(respond(tower("conv2", pool(respond(maps)), which, 2))))
    both = torch.cat(second_layer, 1)  # the only convolution that sees both towers
    fifth_layer = []
    for which in (0, 1):
        maps = tower("conv3", both, which, 1)
        fifth_layer.append(pool(tower("conv5", tower("conv4", maps, which, 1), which, 1)))
    units = torch.cat(fifth_layer, 1).flatten(1)
    units = 0.5 * F.relu(units @ weight["fc6"].T + bias["fc6"])
    units = 0.5 * F.relu(units @ weight["fc7"].T + bias["fc7"])
    return units @ weight["fc8"].T + bias["fc8"]


def test_equals_two_explicit_towers(loud_net):
    x = images(2)
    with torch.no_grad():
        expected = two_towers(loud_net, x)
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            got = loud_net(given)
            assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


def test_zeros_are_padded_right_and_bottom_only():
    net = AlexNet(10, seed=0, width=0.1)
    with torch.no_grad():
        net.conv1.weight.fill_(1.0)
        net.conv1.bias.fill_(0.0)
    counts = outputs_of(net.eval(), torch.ones(1, 3, 224, 224))["conv1"][0, 0] / 3
    assert counts[0, 0] == counts[53, 53] == 11 * 11
    assert counts[54, 0] == counts[0, 54] == 8 * 11  # pixels 216..223 and three of padding
    assert counts[54, 54] == 8 * 8


@pytest.mark.parametrize("norm", ["lrn", "batch"])
@pytest.mark.parametrize(("width", "channels", "units"), [(0.25, 24, 1024), (0.01, 8, 40)])
def test_narrow_networks_train(norm, width, channels, units):
    net = AlexNet(7, seed=0, width=width, norm=norm, init="he")
    assert (net.conv1.out_channels, net.fc7.out_features) == (channels, units)
    logits = net(images(3), step=1, samples=torch.arange(3))
    logits.logsumexp(1).sum().backward()
    assert logits.shape == (3, 7)
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_batch_norm_stands_in_the_two_places():
    kinds = {
        name: type(child)
        for name, child in AlexNet(2, seed=0, width=0.1, norm="batch").named_children()
    }
    assert [name for name, kind in kinds.items() if kind is nn.BatchNorm2d] == ["norm1", "norm2"]
    assert ResponseNorm not in kinds.values()


# --------------------------------------------------------------------------- initial weights


def test_paper_init(paper_net):
    for name in LAYERS:
        weight = paper_net.get_parameter(f"{name}.weight")
        tolerance = 5 * 0.01 / np.sqrt(weight.numel())
        assert abs(weight.mean()) < tolerance
        assert abs(weight.std() - 0.01) < tolerance
        assert (paper_net.get_parameter(f"{name}.bias") == float(name in BIASES_OF_ONE)).all()


def test_he_init():
    net = AlexNet(1000, seed=0, width=0.25, init="he")
    for name in LAYERS:
        weight = net.get_parameter(f"{name}.weight")
        expected = np.sqrt(2 / weight[0].numel())
        assert abs(weight.std() - expected) < 5 * expected / np.sqrt(weight.numel())
        assert (net.get_parameter(f"{name}.bias") == 0).all()


@pytest.mark.parametrize("init", ["paper", "he"])
def test_weights_follow_from_the_seed_alone(init):
    states = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(global_seed)
        states.append(AlexNet(3, seed=seed, width=0.1, init=init).fc7.weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


# --------------------------------------------------------------------------- response norm


def values_and_gradient(norm, x, grad):
    x = x.detach().requires_grad_()
    y = norm(x)
    y.backward(grad)
    return y.detach(), x.grad


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_response_norm_equals_torch_on_one_tower(dtype, tolerance, memory_format):
    generator = torch.Generator().manual_seed(0)
    x, grad = (
        (torch.randn(2, 48, 9, 7, generator=generator, dtype=dtype) * 100).contiguous(
            memory_format=memory_format
        )
        for _ in range(2)
    )
    torchs = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    expected = values_and_gradient(torchs, x, grad)
    got = values_and_gradient(ResponseNorm(towers=1), x, grad)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


def test_response_norm_is_the_printed_formula():
    x = torch.arange(1.0, 7.0).reshape(1, 6, 1, 1) * 100
    y = ResponseNorm(towers=1)(x).flatten()
    squares = x.flatten() ** 2
    assert y[3] == pytest.approx(float(x[0, 3] / (2 + 1e-4 * squares[1:6].sum()) ** 0.75), rel=1e-6)
    assert y[0] == pytest.approx(float(x[0, 0] / (2 + 1e-4 * squares[:3].sum()) ** 0.75), rel=1e-6)


def test_response_norm_gradient():
    x = torch.randn(2, 12, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    norm = ResponseNorm(towers=2, alpha=0.1)  # a strong response, so that its derivative matters
    assert torch.autograd.gradcheck(norm, x.requires_grad_())


def test_response_norm_does_not_mix_towers():
    x = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(2)) * 100
    changed = x.clone()
    changed[:, 8:] *= 3
    norm = ResponseNorm(towers=2)
    assert torch.equal(norm(x)[:, :8], norm(changed)[:, :8])
    apart = torch.cat([ResponseNorm(towers=1)(tower) for tower in x.chunk(2, 1)], 1)
    assert torch.equal(norm(x), apart)


def test_response_norm_keeps_channels_last_and_dtype():
    x = (torch.randn(2, 16, 5, 5) * 100).contiguous(memory_format=torch.channels_last)
    y = ResponseNorm()(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    half = ResponseNorm()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, rtol=0.02, atol=0.02)


# --------------------------------------------------------------------------- dropout


def mask(layer=0, seed=9, step=4, samples=range(16), units=4096, probability=0.5):
    """True where a unit is kept."""
    dropout = CounterDropout(units, probability, seed, layer)
    out = dropout(torch.full((len(samples), units), 3.0), step, torch.tensor(list(samples)))
    assert set(out.unique().tolist()) == {0.0, 3.0}  # kept units are not scaled
    return out != 0


def test_mask_is_the_words_of_its_counter():
    kept = mask(layer=1, seed=9 + (7 << 32), step=4, samples=[5], units=10, probability=0.3)
    for unit in range(10):
        word = philox4x32(unit // 4, 5, 4, DROPOUT + 1, 9, 7)[unit % 4]
        assert kept[0, unit] == (word >= int(0.3 * 2**32))


def test_mask_does_not_depend_on_the_batch():
    whole = mask(samples=range(100, 116))
    parts = [mask(samples=range(at, at + 4)) for at in range(100, 116, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole.flip(0), mask(samples=range(115, 99, -1)))


@pytest.mark.parametrize("probability", [0.25, 0.5])
def test_the_wanted_share_is_dropped(probability):
    kept = mask(samples=range(64), probability=probability)
    deviation = np.sqrt(probability * (1 - probability) / kept.numel())
    assert abs(kept.float().mean() - (1 - probability)) < 4 * deviation


def test_masks_differ_by_step_layer_seed_and_sample():
    masks = [mask(), mask(step=5), mask(layer=1), mask(seed=10), mask(seed=9 + 2**32)]
    masks.append(mask(samples=range(16, 32)))
    for i, one in enumerate(masks):
        for other in masks[:i]:
            agreement = (one == other).float().mean()
            assert abs(agreement - 0.5) < 4 * np.sqrt(0.25 / one.numel())


def test_evaluation_scales_by_the_share_kept():
    x = torch.randn(3, 8)
    dropout = CounterDropout(8, 0.25, seed=0, layer=0).eval()
    torch.testing.assert_close(dropout(x, 0, None), 0.75 * x)


def test_the_two_layers_have_masks_of_their_own(paper_net):
    assert paper_net.dropout6.stream != paper_net.dropout7.stream


def test_training_without_samples_is_an_error(paper_net):
    with pytest.raises(ValueError, match="samples"):
        paper_net.train()(images(1))


def test_training_does_not_depend_on_the_batch():
    net = AlexNet(5, seed=0, width=0.25, init="he")
    x, samples = images(4), torch.tensor([7, 1, 3, 9])
    step = torch.tensor(6)
    whole = net(x, step, samples)
    halves = torch.cat([net(x[:1], step, samples[:1]), net(x[1:], step, samples[1:])])
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(whole, net(x, step + 1, samples), rtol=1e-2)


def test_unit_numbers_are_an_input_of_the_graph():
    # Inductor (torch 2.15) multiplies a torch.arange within the graph as a 32-bit index.
    assert "blocks" in dict(CounterDropout(8, 0.5, seed=0, layer=0).named_buffers())
