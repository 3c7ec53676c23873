"""An update replayed: what a graph freezes, by a stand-in that repeats torch's operations on a CPU.

The stand-in does to a CPU's operations what CUDA does to kernels: recording changes no memory, a
replay repeats the operations with the memory and the numbers that they were recorded with. An
operation that would read a number from a GPU is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train import networks, optimiser
from train.graphs import Graphs
from train.loader import Batch
from train.optimiser import set_rates
from train.processes import ALONE
from train.recipe import Recipe, load_recipe
from train.screen import Screen
from train.state import RunSettings, State
from train.step import Updater, updater
from train.sums import EpochSums

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, IMAGES, STEPS = 7, 4, 12
CPU = torch.device("cpu")
READS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal)


class Repeated(TorchDispatchMode):
    """Records operations, can undo what they did, and repeat them."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, operation: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        assert operation.overloadpacket not in READS, f"{operation} waits for the device"
        named = named or {}
        read = {memory._cdata: memory for memory in map(_memory, _tensors((given, named)))}
        for place, memory in read.items():
            if place not in self._made:
                self._before.setdefault(place, (memory, memory.clone()))
        results = operation(*given, **named)
        outputs = [tensor.detach() for tensor in _tensors(results)]  # kept, so is their memory
        self._made |= {_memory(tensor)._cdata for tensor in outputs} - read.keys()
        self._done.append((operation, given, named, outputs))
        return results

    def undo(self) -> None:
        for memory, before in self._before.values():
            memory.copy_(before)

    def repeat(self) -> None:
        with torch.no_grad():
            for operation, given, named, outputs in self._done:
                for kept, now in zip(outputs, _tensors(operation(*given, **named)), strict=True):
                    if _memory(now)._cdata != _memory(kept)._cdata:  # not in place, and no view
                        kept.copy_(now)


def _memory(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def record(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
    work()  # as record_cuda does
    operations = Repeated()
    with operations:
        sums = work()
    operations.undo()
    return sums, operations.repeat


def pair(said: list[str], *values: str, by: Any = record, pieces: int = 1) -> list[Updater]:
    """Two updaters that begin alike: one as it is, one with graphs."""
    recipe = of_recipe(*values)
    settings = RunSettings(Path(), None, recipe, Path(), "never", CPU, 1, accumulate=pieces)
    made = []
    for _ in range(2):
        network = networks.build(recipe, CLASSES).train().to(memory_format=torch.channels_last)
        state = State(
            network=network,
            average=AveragedModel(network, use_buffers=True) if recipe.average_decay else None,
            sgd=optimiser.build(network, recipe),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            sums=EpochSums(CPU, ALONE),
        )
        made.append(updater(settings, state, ALONE, Screen(silent=True), IMAGES))
    plain, other = made
    graphs = Graphs(other.network, other.sgd, IMAGES, said.append, by)
    return [plain, dataclasses.replace(other, graphs=graphs)]


def of_recipe(*values: str) -> Recipe:
    return load_recipe("paper", ["width=0.05", "init=he", f"batch={IMAGES}", *values])


def batch_of(step: int) -> Batch:
    """Grey levels less their mean; the fifth one is an epoch's smaller last batch."""
    images = IMAGES if step != 4 else IMAGES - 1
    draw = torch.Generator().manual_seed(step)
    pixels = 60 * torch.randn(images, 3, 224, 224, generator=draw)
    labels = torch.randint(CLASSES, (images,), generator=draw)
    return Batch(
        pixels.contiguous(memory_format=torch.channels_last),
        labels,
        torch.arange(images) + step * IMAGES,
    )


def rate_of(step: int) -> float:
    return 0.001 * (step + 1)


def trained(updater: Updater, recipe: Recipe, steps: int = STEPS) -> list[torch.Tensor]:
    """Sums and the gradient's norm of every step, then weights, running figures and averages."""
    found = []
    for step in range(steps):
        set_rates(updater.sgd, recipe, step, rate_of(step))
        batch = batch_of(step)
        found.append(updater.step(batch, step, len(batch.labels)))
        found.append(updater.gradient_norm())
    kept = [updater.network, updater.judged()]
    return found + [values for of in kept for values in of.state_dict().values()]


@pytest.mark.parametrize(
    ("values", "pieces"),
    [
        ((), 1),
        ((), 2),
        (("network=paper-batch-norm", "label_smoothing=0.1", "nesterov=true"), 1),
        (("precision=bf16",), 1),
        (("average_decay=0.5", "velocity=scaled"), 1),
        (("network=authors-2012", "bias_rate_factor=2", "bias_decay=false"), 1),
    ],
)
def test_replayed_updates_are_those_without_graphs(values: tuple[str, ...], pieces: int) -> None:
    """Other images, labels, dropout masks and rates each time, a smaller batch in between."""
    said: list[str] = []
    plain, replayed = pair(said, *values, pieces=pieces)
    recipe = of_recipe(*values)
    wanted, found = trained(plain, recipe), trained(replayed, recipe)
    assert said == ["CUDA graph of an update recorded"]
    assert replayed.computed == "graphs"
    for one, other in zip(found, wanted, strict=True):
        # The rates are float32 in a graph's memory.
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_a_layer_that_freezes_is_left_out_of_a_new_graph() -> None:
    said: list[str] = []
    layer = 'layer_rates=[{layer = "conv1", from_epoch = 3, rate = 0.0}]'
    plain, replayed = pair(said, layer)
    recipe = of_recipe(layer)
    wanted, found = trained(plain, recipe, 6), trained(replayed, recipe, 6)
    assert said == ["CUDA graph of an update recorded"] * 2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def fails(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
    work()
    raise RuntimeError("operation not permitted when stream is capturing\nCUDA error 900")


def does_nothing(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
    return work(), lambda: None


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (fails, "operation not permitted when stream is capturing"),
        (does_nothing, "it gives another update"),
    ],
)
def test_without_a_true_graph_the_run_goes_on_as_if_none_was_asked_for(
    by: Any, reason: str
) -> None:
    said: list[str] = []
    plain, replayed = pair(said, "network=paper-batch-norm", by=by)
    recipe = of_recipe("network=paper-batch-norm")
    wanted, found = trained(plain, recipe, 3), trained(replayed, recipe, 3)
    assert said == [f"CUDA graph of an update: {reason}; the run goes on without"]
    assert replayed.computed == "eager"
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_an_operation_that_waits_for_the_device_is_found() -> None:
    """Of this file's stand-in."""
    with pytest.raises(AssertionError, match="waits for the device"):
        record(lambda: torch.full((3,), float(torch.ones(3).sum().item())))
