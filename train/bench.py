"""Rates of a training run's parts, each by itself and together, in images/s.

- loader: batches from the beton to the device, as the network's side is given them.
- step: what the device augments of them, and the update, of one batch that lies there already.
- both: as `train run` does it, without validation and checkpoints.

In a round each part takes its turn, first some steps that do not count, then for some seconds. A
first round is thrown away. On a CUDA device its events tell the time, between steps that are queued
one behind the other.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch

from prep.program import UserError
from train.feed import Feeding
from train.loader import Batch
from train.processes import ALONE
from train.recipe import Precision
from train.screen import Screen
from train.start import feeding, start
from train.state import Computed, Data, RunSettings
from train.step import Updater, updater

Steps = Callable[[], Generator[int, None, None]]  # endless, each giving its number of images

PARTS = ("loader", "step", "both")
IMAGENET = 1_281_167  # training images of ILSVRC-2012
EPOCHS = 90  # paper, section 5
BEFORE = 3  # steps that do not count: the loader's first batches, the allocator's first blocks


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of computing a step."""

    batch: int
    precision: Precision
    computed: Computed

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.precision}, {self.computed}"


def ways(
    batches: Sequence[int], precisions: Sequence[Precision], compiled: bool, graphs: bool
) -> list[Way]:
    """Every batch in every precision, eager, and compiled in the ways that are asked for."""
    computed: list[Computed] = ["eager"]
    if compiled:
        computed.append("compiled")
    if graphs:
        computed.append("graphs")
    return [Way(*each) for each in itertools.product(batches, precisions, computed)]


@dataclasses.dataclass(frozen=True)
class Rates:
    """images/s of one part, a number a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def figures(self) -> dict[str, float]:
        """For JSON."""
        return {
            "median": round(self.median, 3),
            "lowest": round(min(self.rounds), 3),
            "highest": round(max(self.rounds), 3),
            "n": len(self.rounds),
        }


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a way gave; memory: bytes at its peak on a CUDA device, else 0."""

    way: Way
    parts: dict[str, Rates]
    memory: int

    @property
    def of_the_slower(self) -> float:
        """What both together keep of the slower one's rate; median of the rounds."""
        loader, step, both = (self.parts[name].rounds for name in PARTS)
        kept = (b / min(a, s) for a, s, b in zip(loader, step, both, strict=True))
        return float(statistics.median(kept))

    @property
    def paper_hours(self) -> float:
        """Of the paper's training at the rate of both together: computed, without validation."""
        return EPOCHS * IMAGENET / self.parts["both"].median / 3600


def settings_of(settings: RunSettings, way: Way) -> RunSettings:
    recipe = dataclasses.replace(settings.recipe, batch=way.batch, precision=way.precision)
    return dataclasses.replace(settings, recipe=recipe, computed=way.computed)


def prepared(settings: RunSettings, data: Data, way: Way, screen: Screen) -> tuple[Updater, Work]:
    """Compiled, but for what the first steps still do."""
    chosen = settings_of(settings, way)
    if way.computed != "eager":
        torch._dynamo.reset()  # of another batch, the same network would be compiled for any
    state = start(chosen, data, ALONE, Screen(silent=True))
    state.network.train()
    update = updater(chosen, state, ALONE, screen, samples=way.batch)
    batches = feeding(chosen, data, ALONE)
    batches.prepare(screen.line)
    return update, Work(batches, update, chosen.recipe.seed, len(data.train) // way.batch)


def measure(
    settings: RunSettings,
    data: Data,
    way: Way,
    *,
    rounds: int,
    seconds: float,
    screen: Screen,
    beside: Mapping[str, Steps] | None = None,
) -> Measured:
    """The rates of one way; rounds of at least `seconds` a part.

    beside: other parts that take their turns in the same rounds.
    Raises UserError where the beton has fewer images than a batch.
    """
    if way.batch > len(data.train):
        raise UserError(
            f"{settings.beton} has {len(data.train)} images, fewer than a batch of {way.batch}; "
            "give a smaller --batch"
        )
    update, work = prepared(settings, data, way, screen)
    parts: dict[str, Steps] = {"loader": work.loader, "step": work.step, "both": work.both}
    parts |= beside or {}
    device = settings.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            screen.line(f"{way}: {name}, {f'round {number}' if number else 'before the rounds'}")
            with closing(part()) as steps:
                rate = _rate(steps, seconds, device)
            if number > 0:
                found[name].append(rate)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    way = dataclasses.replace(way, computed=update.computed)  # also where it could not be compiled
    return Measured(way, {name: Rates(tuple(rates)) for name, rates in found.items()}, memory)


class Work:
    """The parts: endless steps, each giving how many images it was of."""

    def __init__(self, feeding: Feeding, updater: Updater, seed: int, whole_batches: int) -> None:
        self._feeding, self._updater, self._seed = feeding, updater, seed
        self._whole_batches = whole_batches
        self._epochs = itertools.count()
        self._steps = itertools.count()
        self._epoch = torch.zeros((), dtype=torch.int64, device=updater.device)

    def loader(self) -> Generator[int, None, None]:
        for epoch in self._epochs:
            with closing(self._feeding.stored(self._seed, epoch)) as batches:
                for batch in self._whole(batches):
                    yield len(batch.labels)

    def step(self) -> Generator[int, None, None]:
        with closing(self._feeding.stored(self._seed, next(self._epochs))) as batches:
            batch = Batch(*(values.clone() for values in next(batches)))
        while True:
            yield self._update(self._feeding.augmented(batch, self._epoch))

    def both(self) -> Generator[int, None, None]:
        for epoch in self._epochs:
            with closing(self._feeding.epoch(self._seed, epoch)) as batches:
                for batch in self._whole(batches):
                    yield self._update(batch)

    def _whole(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Without an epoch's last batch, if it is smaller."""
        return itertools.islice(batches, self._whole_batches)

    def _update(self, batch: Batch) -> int:
        images = len(batch.labels)
        self._updater.step(batch, next(self._steps), images)
        return images


def _rate(steps: Iterator[int], seconds: float, device: torch.device) -> float:
    """images/s over at least `seconds`, after BEFORE steps and some that tell how many."""
    for _ in range(BEFORE):
        next(steps)
    count = 1
    while True:
        passed = moments(device)
        images = sum(itertools.islice(steps, count))
        took = passed()
        if took >= seconds:
            return images / took
        count = math.ceil(count * min(1.1 * seconds / max(took, 1e-9), 100.0))


def moments(device: torch.device) -> Callable[[], float]:
    """Begin to measure; the function ends it, and gives the seconds."""
    if device.type == "cuda":
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begin.record()

        def passed() -> float:
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1000

        return passed
    began = time.perf_counter()
    return lambda: time.perf_counter() - began


def lines(measured: Sequence[Measured]) -> Iterator[str]:
    """A table for people."""
    heads = ("batch", "precision", "network", *(f"{name}, images/s" for name in PARTS))
    rows = [(*heads, "both of the slower", "90 ImageNet epochs, computed", "memory")]
    for each in measured:
        way = each.way
        rates = (f"{each.parts[name].median:,.1f}" for name in PARTS)
        memory = f"{each.memory / 2**20:,.0f} MiB" if each.memory else ""
        rows.append(
            (
                str(way.batch),
                way.precision,
                way.computed,
                *rates,
                f"{each.of_the_slower:.2f}",
                f"{each.paper_hours:,.1f} h",
                memory,
            )
        )
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:>{size}}" for cell, size in zip(row, wide, strict=True)).rstrip()


def report(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "batch": each.way.batch,
            "precision": each.way.precision,
            "network": each.way.computed,
            "images/s": {name: rates.figures() for name, rates in each.parts.items()},
            "both of the slower": round(each.of_the_slower, 3),
            "hours of 90 ImageNet epochs, computed": round(each.paper_hours, 3),
            "memory on the device, MiB": each.memory >> 20,
        }
        for each in measured
    ]
