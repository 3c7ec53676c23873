"""An update: its loss and gradient, in pieces, at other precisions, smoothed, compiled."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from train import networks, optimiser
from train import step as steps
from train.epoch_order import part_size
from train.loader import Batch
from train.processes import ALONE
from train.recipe import Recipe, load_recipe
from train.screen import Screen
from train.state import RunSettings, State
from train.step import Updater, add_to_average, piece_sizes, updater
from train.sums import EpochSums

CPU = torch.device("cpu")
CLASSES, IMAGES = 7, 5
NARROW = ("network=single-tower", "width=0.05", "init=he", "batch=5", "learning_rate=0.001")
MakeUpdater = Callable[..., Updater]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def batch() -> Batch:
    """Grey levels less their mean, as the paper's network takes them."""
    draw = torch.Generator().manual_seed(0)
    images = 60 * torch.randn(IMAGES, 3, 224, 224, generator=draw)
    labels = torch.randint(CLASSES, (IMAGES,), generator=draw)
    return Batch(
        images.contiguous(memory_format=torch.channels_last), labels, torch.arange(IMAGES) + 100
    )


class Lines(Screen):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.told: list[str] = []

    def line(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def make(tmp_path: Any) -> MakeUpdater:
    """An updater of a narrow paper network with its dropout, by recipe values and settings."""

    def of(
        *values: str, screen: Screen | None = None, samples: int = IMAGES, **chosen: Any
    ) -> Updater:
        recipe = load_recipe("paper", [*NARROW, *values])
        settings = RunSettings(tmp_path, None, recipe, tmp_path, "never", CPU, 1, **chosen)
        state, shown = fresh_state(recipe), screen or Screen(silent=True)
        return updater(settings, state, ALONE, shown, samples)

    return of


def fresh_state(recipe: Recipe) -> State:
    network = networks.build(recipe, CLASSES).train().to(memory_format=torch.channels_last)
    return State(
        network=network,
        average=None,
        sgd=optimiser.build(network, recipe),
        scaler=torch.amp.GradScaler("cpu", enabled=recipe.precision == "fp16"),
        sums=EpochSums(CPU, ALONE),
    )


def scaled(updater: Updater, scale: float) -> Updater:
    """With a factor of its own on the loss, where the precision has one."""
    enabled = updater.scaler.is_enabled()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=enabled)
    return dataclasses.replace(updater, scaler=scaler)


def gradients(updater: Updater) -> dict[str, torch.Tensor]:
    found = {
        name: p.grad.clone() for name, p in updater.network.named_parameters() if p.grad is not None
    }
    assert len(found) == 16
    return found


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """To float32's rounding of sums in another order."""
    atol = 1e-5 * float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=atol)


def weights(updater: Updater) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in updater.network.named_parameters()}


def test_the_gradient_is_of_the_mean_loss(make: MakeUpdater, batch: Batch) -> None:
    whole = make("dropout=0")
    logits = whole.network(batch.images, 0, batch.samples)
    loss = -logits.log_softmax(1)[torch.arange(IMAGES), batch.labels]
    wanted = torch.autograd.grad(loss.mean(), list(whole.network.parameters()))
    sums = whole.step(batch, 0, IMAGES)
    assert float(sums[0]) == pytest.approx(float(loss.detach().sum()), rel=1e-5)
    assert float(sums[1]) == (logits.argmax(1) != batch.labels).sum()
    for found, gradient in zip(gradients(whole).values(), wanted, strict=True):
        assert_same(found, gradient)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in wanted))
    assert float(whole.gradient_norm()) == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("pieces", [2, 3, IMAGES, 100])
def test_pieces_of_a_batch_give_the_update_of_the_whole(
    make: MakeUpdater, batch: Batch, pieces: int
) -> None:
    """With dropout, whose masks go by sample; more pieces than images are as many as images."""
    whole, divided = make(), make(accumulate=pieces)
    sums, parts = whole.step(batch, 3, IMAGES), divided.step(batch, 3, IMAGES)
    torch.testing.assert_close(parts, sums, rtol=1e-5, atol=0)
    found, wanted = gradients(divided), gradients(whole)
    for name, gradient in wanted.items():
        assert_same(found[name], gradient)
    for name, values in weights(whole).items():
        assert_same(weights(divided)[name], values)


def test_a_part_of_a_batch_weighs_as_its_share(make: MakeUpdater, batch: Batch) -> None:
    """What other processes have of a batch counts in its total."""
    alone, shared = make(), make()
    alone.step(batch, 0, IMAGES)
    shared.step(batch, 0, 4 * IMAGES)
    for name, gradient in gradients(alone).items():
        assert_same(gradients(shared)[name], gradient / 4)


def test_smoothed_labels_give_every_class_a_share(make: MakeUpdater, batch: Batch) -> None:
    """Szegedy et al. 2015, section 7: (1 - s) of the label's own, s over the number of classes."""
    share = 0.1
    smooth = make("dropout=0", f"label_smoothing={share}")
    log_p = smooth.network(batch.images, 0, batch.samples).log_softmax(1).detach().double()
    wanted = torch.full((IMAGES, CLASSES), share / CLASSES, dtype=torch.float64)
    wanted[torch.arange(IMAGES), batch.labels] += 1 - share
    sums = smooth.step(batch, 0, IMAGES)
    assert float(sums[0]) == pytest.approx(float(-(wanted * log_p).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_half_precision_multiplies_so_and_keeps_float32(
    make: MakeUpdater, batch: Batch, precision: str, dtype: torch.dtype
) -> None:
    """Layers give halves, the response norm and the weights are float32; the loss is about it."""
    exact, half = make("dropout=0"), scaled(make("dropout=0", f"precision={precision}"), 8.0)
    seen: dict[str, torch.dtype] = {}

    def note(name: str, _: nn.Module, __: Any, out: torch.Tensor) -> None:
        seen[name] = out.dtype

    for name, layer in half.network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(functools.partial(note, name))
    wanted, found = exact.step(batch, 0, IMAGES), half.step(batch, 0, IMAGES)
    assert len(seen) == 8
    assert set(seen.values()) == {dtype}
    assert found[0] != wanted[0]
    assert float(found[0]) == pytest.approx(float(wanted[0]), rel=0.02)
    assert all(values.dtype == torch.float32 for values in weights(half).values())
    # The scaler has taken its factor out again.
    assert float(half.gradient_norm()) == pytest.approx(float(exact.gradient_norm()), rel=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_images_are_made_what_the_first_layer_would_make_of_them(
    make: MakeUpdater, batch: Batch, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision from the beginning: the same update, bit for bit."""
    here, there = (scaled(make(f"precision={precision}"), 8.0) for _ in range(2))
    here.step(batch, 0, IMAGES)
    monkeypatch.setattr(steps, "image_dtype", lambda _: torch.float32)
    there.step(batch, 0, IMAGES)
    for name, values in weights(here).items():
        assert torch.equal(values, weights(there)[name])


def test_a_gradient_too_large_for_fp16_is_left_out_and_the_scale_halved(
    make: MakeUpdater, batch: Batch
) -> None:
    half = scaled(make("precision=fp16"), 2.0**60)
    before = weights(half)
    half.step(batch, 0, IMAGES)
    assert all(torch.equal(values, before[name]) for name, values in weights(half).items())
    assert half.scaler.get_scale() == 2.0**59


def test_compiled_it_is_the_same_update_and_compiled_once(
    make: MakeUpdater, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch.compile, up to where a machine's own code is made."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(steps.torch, "compile", functools.partial(torch.compile, backend=counter))
    screen = Lines()
    eager, compiled = make(), make(computed="compiled", screen=screen)
    assert screen.told[0].startswith("torch.compile: compiling")
    assert screen.told[1].startswith("torch.compile: ")
    assert counter.frame_count > 0
    graphs = counter.frame_count
    for number in range(3):
        one, two = eager.step(batch, number, IMAGES), compiled.step(batch, number, IMAGES)
        torch.testing.assert_close(two, one, rtol=1e-5, atol=0)
    assert counter.frame_count == graphs
    for name, values in weights(eager).items():
        assert_same(weights(compiled)[name], values)


def test_the_average_is_torchs(make: MakeUpdater, batch: Batch) -> None:
    """Of AveragedModel, whose own update is what this one is beside."""
    decay = 0.75
    one = make("network=paper-batch-norm", f"average_decay={decay}")
    move = get_ema_multi_avg_fn(decay)
    ours, theirs = (
        AveragedModel(one.network, multi_avg_fn=move, use_buffers=True) for _ in range(2)
    )
    for number in range(3):
        one.step(batch, number, IMAGES)
        add_to_average(ours, one.network, decay)
        theirs.update_parameters(one.network)
        assert ours.n_averaged == number + 1
        for name, values in theirs.state_dict().items():
            if values.is_floating_point():
                torch.testing.assert_close(ours.state_dict()[name], values, rtol=0, atol=0)
    moved = ours.module.state_dict()["norm1.running_mean"]
    assert not torch.equal(moved, one.network.state_dict()["norm1.running_mean"])


@pytest.mark.parametrize(
    ("samples", "batch", "pieces", "world", "wanted"),
    [
        (1000, 128, 1, 1, [128, 104]),
        (100, 128, 1, 1, [100]),
        (256, 128, 1, 1, [128]),
        (1000, 128, 3, 1, [43, 42, 35, 34]),
        (1000, 128, 1, 3, [43, 42, 35, 34]),
        (9, 8, 4, 3, [1]),  # a last batch of one: two processes have nothing
    ],
)
def test_every_size_of_a_piece_is_known_before_it_comes(
    samples: int, batch: int, pieces: int, world: int, wanted: list[int]
) -> None:
    assert piece_sizes(samples, batch, pieces, world) == wanted
    came = {
        len(piece)
        for together in (batch,) * (samples // batch) + (samples % batch,)
        for rank in range(world)
        for part in [torch.empty(part_size(together, rank, world))]
        for piece in part.tensor_split(max(min(pieces, len(part)), 1))
    }
    assert came - {0} == set(wanted)


def test_the_smaller_last_batch_is_compiled_before_it_comes(
    make: MakeUpdater, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(steps.torch, "compile", functools.partial(torch.compile, backend=counter))
    compiled = make(computed="compiled", samples=IMAGES + 2)
    graphs = counter.frame_count
    for images in (IMAGES, 2):
        compiled.step(Batch(*(values[:images] for values in batch)), 0, images)
    assert counter.frame_count == graphs


def test_where_it_cannot_be_compiled_the_run_goes_on_without(
    make: MakeUpdater, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any, **__: Any) -> Any:
        def forward(*_: object) -> Any:
            raise RuntimeError("no C++ compiler\nhere")

        return forward

    monkeypatch.setattr(steps.torch, "compile", broken)
    screen = Lines()
    eager = make(computed="compiled", screen=screen)
    assert screen.told[1:] == ["torch.compile failed (no C++ compiler); the run goes on without it"]
    assert torch.isfinite(eager.step(batch, 0, IMAGES)).all()


def test_a_rehearsal_changes_nothing(make: MakeUpdater) -> None:
    """Batch norm's running figures too."""
    rehearsed = make("network=paper-batch-norm")
    before = {name: values.clone() for name, values in rehearsed.network.state_dict().items()}
    rehearsed.rehearse(224, 2)
    after = rehearsed.network.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items())
    assert all(p.grad is None for p in rehearsed.network.parameters())
