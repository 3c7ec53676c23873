"""One update: forward, loss, backward, the optimiser's step, the average of the weights.

A batch is that of all processes together. The gradient is of the sum of its samples' losses over
their number, so that it does not depend on how they are divided: among processes, which may have
unequal parts or none in the last batch, nor into pieces (`accumulate`), which save memory. Nothing
here waits for the device, but for fp16's scaler.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from prep.program import first_line
from train import evaluate
from train.epoch_order import part_size
from train.graphs import Given, Graphs
from train.loader import Batch
from train.processes import Processes
from train.recipe import Precision
from train.screen import Screen
from train.state import Computed, RunSettings, State

REHEARSED = 2  # images, the fewest that batch norm takes
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def image_dtype(precision: Precision) -> torch.dtype:
    """Of a network's images: what its first layer would make of them."""
    return AUTOCAST.get(precision, torch.float32)


@dataclasses.dataclass(frozen=True)
class Updater:
    """What an update changes and how."""

    network: nn.Module
    forward: Any  # the network as it is called, divided among processes or compiled
    sgd: torch.optim.SGD
    average: AveragedModel | None
    average_decay: float
    scaler: torch.amp.GradScaler
    processes: Processes
    device: torch.device
    precision: Precision
    accumulate: int  # pieces of a batch
    smoothing: float  # of the labels
    graphs: Graphs | None = None

    def step(self, batch: Batch, step: int, total: int) -> torch.Tensor:
        """Update once; float32 [3] on the device: sums of loss, top-1 and top-5 misses here.

        total: samples of the batch in all processes.
        """
        images = batch.images.to(self.device, image_dtype(self.precision))
        labels = batch.labels.to(self.device)
        given = Given(images, labels, batch.samples.to(self.device), self._number(step))
        update = functools.partial(self._update, total=total)
        sums = update(given) if self.graphs is None else self.graphs.step(update, given)
        if self.average is not None:
            add_to_average(self.average, self.network, self.average_decay)
        return sums

    def _update(self, given: Given, total: int) -> torch.Tensor:
        """All of it that a CUDA graph can repeat."""
        images, labels, samples, number = given
        pieces = max(min(self.accumulate, len(labels)), 1)
        sums = torch.zeros(3, device=self.device)
        self.sgd.zero_grad()
        parts = (values.tensor_split(pieces) for values in (images, labels, samples))
        for piece, (x, y, which) in enumerate(zip(*parts, strict=True), start=1):
            with self._together(piece == pieces):
                with self._autocast():
                    logits = self.forward(x, number, which)
                loss = F.cross_entropy(
                    logits.float(), y, reduction="sum", label_smoothing=self.smoothing
                )
                # DistributedDataParallel takes the mean of the processes' gradients.
                share = loss * (self.processes.world / total)
                self.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
            misses = evaluate.wrong(logits.detach(), y)
            sums += torch.stack([loss.detach(), *misses])
        self.scaler.unscale_(self.sgd)
        self.scaler.step(self.sgd)
        self.scaler.update()
        return sums

    @property
    def computed(self) -> Computed:
        """As it came to be: what is asked for may fail."""
        if self.graphs is not None and not self.graphs.failure:
            return "graphs"
        return "eager" if self.forward is self.network else "compiled"

    def judged(self) -> nn.Module:
        """The network that is evaluated."""
        return self.network if self.average is None else self.average

    def gradient_norm(self) -> torch.Tensor:
        """Of the last update, all parameters together: float32 [] on the device."""
        parameters = (p for group in self.sgd.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def rehearse(self, crop: int, batch: int) -> None:
        """Forward and backward once on zeros, without an update; buffers stay as they are."""
        buffers = {name: values.clone() for name, values in self.network.named_buffers()}
        shape, dtype = (max(batch, 1), 3, crop, crop), image_dtype(self.precision)
        images = torch.zeros(shape, dtype=dtype, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        try:
            with self._autocast():
                samples = torch.arange(len(images), device=self.device)
                logits = self.forward(images, self._number(0), samples)
            logits.float().sum().backward()
        finally:
            self.sgd.zero_grad()
            for name, values in self.network.named_buffers():
                values.copy_(buffers[name])

    def _number(self, step: int) -> torch.Tensor:
        """int64 [] on the device: of a Python number, torch.compile would compile two networks."""
        return torch.full((), step, dtype=torch.int64, device=self.device)

    def _autocast(self) -> Any:
        dtype = AUTOCAST.get(self.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype)

    def _together(self, last: bool) -> Any:
        """Gradients are added up over the processes once, with the last piece."""
        if last or self.processes.world == 1:
            return contextlib.nullcontext()
        return self.forward.no_sync()


def add_to_average(average: AveragedModel, network: nn.Module, decay: float) -> None:
    """Weights and batch norm's running figures; the first time they are taken as they are.

    AveragedModel.update_parameters() waits for the device: it takes its own count there each time.
    """
    pairs = [
        (kept.detach(), now.detach())
        for kept, now in zip(_values(average.module), _values(network), strict=True)
        if kept.is_floating_point()
    ]
    kept, now = map(list, zip(*pairs, strict=True))
    torch._foreach_lerp_(kept, now, 1 - decay if average.n_averaged else 1.0)
    average.n_averaged += 1


def _values(network: nn.Module) -> Iterator[torch.Tensor]:
    return itertools.chain(network.parameters(), network.buffers())


def updater(
    settings: RunSettings, state: State, processes: Processes, screen: Screen, samples: int
) -> Updater:
    """Ready for the next step; all processes call it. Compiling takes its time here.

    samples: those of an epoch, whose last batch may be a smaller one.
    """
    recipe, device = settings.recipe, settings.device
    torch.backends.cuda.matmul.allow_tf32 = recipe.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
    alone = Updater(
        network=state.network,
        forward=state.network,
        sgd=state.sgd,
        average=state.average,
        average_decay=recipe.average_decay,
        scaler=state.scaler,
        processes=processes,
        device=device,
        precision=recipe.precision,
        accumulate=settings.accumulate,
        smoothing=recipe.label_smoothing,
    )
    compiled = None
    if settings.computed != "eager":
        sizes = piece_sizes(samples, recipe.batch, settings.accumulate, processes.world)
        compiled = _compiled(alone, settings, sizes, screen)
    if processes.world == 1:
        chosen = compiled or alone
        if settings.computed != "graphs":
            return chosen
        graphs = Graphs(state.network, state.sgd, min(recipe.batch, samples), screen.line)
        return dataclasses.replace(chosen, graphs=graphs)
    among = DistributedDataParallel(state.network, [device] if device.type == "cuda" else None)
    divided = dataclasses.replace(alone, forward=among)
    # From its second time on it adds up in another order, and so would a run that is resumed.
    divided.rehearse(recipe.crop, REHEARSED)
    if compiled is None:
        return divided
    compiled = dataclasses.replace(divided, forward=torch.compile(among, dynamic=False))
    compiled.rehearse(recipe.crop, sizes[0])
    return compiled


def _compiled(
    alone: Updater, settings: RunSettings, sizes: list[int], screen: Screen
) -> Updater | None:
    """By torch.compile, for pieces of these sizes; None where a process cannot.

    Without the other processes, which would wait for one that fails.
    """
    # Not dynamic: the smaller last batch of an epoch would make all others slower from then on.
    forward = torch.compile(alone.network, dynamic=False)
    compiled = dataclasses.replace(alone, forward=forward)
    started = time.monotonic()
    screen.line("torch.compile: compiling the network ...")
    reason = ""
    try:
        for size in sizes:
            compiled.rehearse(settings.recipe.crop, size)
    except Exception as error:  # compilers fail in every way there is
        reason = first_line(error)
    if alone.processes.largest(int(bool(reason))):  # all alike
        screen.line(
            f"torch.compile failed ({reason or 'in another process'}); the run goes on without it"
        )
        return None
    screen.line(f"torch.compile: {time.monotonic() - started:.1f} s")
    return compiled


def piece_sizes(samples: int, batch: int, pieces: int, world: int) -> list[int]:
    """All the sizes that a piece of a batch has in any process, the largest first."""
    sizes = set()
    for together in (min(batch, samples), samples % batch):
        for rank in range(world):
            part = part_size(together, rank, world)
            many = max(min(pieces, part), 1)
            sizes |= {part // many, -(-part // many)}
    return sorted(sizes - {0}, reverse=True)
