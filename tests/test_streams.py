"""Batches on their way to a GPU: a host buffer is not filled again before it has been copied.

A GPU is emulated by FIFO queues, one a stream, whose work is done by a thread each: FFCV's streams,
events and copies go through them, and the GPU is slower than the loader.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ffcv.loader import epoch_iterator
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.transforms import ToDevice

from train import loader
from train.dataset import open_dataset
from train.loader import Batches

STEP = 0.03  # seconds of the GPU; the loader needs a third of it
BATCH, EPOCHS = 2, 3


class Stream:
    """Work is done in the order in which it came."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.work.get()()

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        self.work.put(event.over.wait)

    def synchronize(self) -> None:
        event = Event()
        event.record(self)
        event.over.wait()


class Event:
    def record(self, stream: Stream) -> None:
        self.over = threading.Event()
        stream.work.put(self.over.set)

    def wait(self) -> None:
        gpu.current().work.put(self.over.wait)


class Gpu:
    """What FFCV uses of torch.cuda."""

    Stream, Event = Stream, Event

    def __init__(self) -> None:
        self.main = Stream()
        self._chosen = threading.local()

    def current(self) -> Stream:
        stream: Stream = getattr(self._chosen, "stream", self.main)
        return stream

    current_stream = current

    @contextlib.contextmanager
    def stream(self, chosen: Stream) -> Iterator[None]:
        before = self.current()
        self._chosen.stream = chosen
        yield
        self._chosen.stream = before


gpu = Gpu()


class ToEmulated(ToDevice):  # type: ignore[misc]
    """FFCV's ToDevice: the copy is queued, nobody waits for it."""

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, AllocationQuery]:
        query = AllocationQuery(previous_state.shape, dtype=previous_state.dtype, device=CPU)
        return replace(previous_state, jit_mode=False), query

    def generate_code(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def to_device(values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            target = target[: len(values)]
            gpu.current().work.put(lambda: target.copy_(values))
            return target

        return to_device


CPU = torch.device("cpu")


def test_a_slow_gpu_is_given_every_sample_as_it_was_read(
    betons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(betons / "train.beton")
    stored = {
        sample: image.clone()
        for batch in Batches(dataset, 6, 1, order="sequential").sequential()
        for sample, image in zip(batch.samples.tolist(), batch.images, strict=True)
    }
    monkeypatch.setattr(epoch_iterator, "IS_CUDA", True)
    monkeypatch.setattr(epoch_iterator, "ch", types.SimpleNamespace(cuda=gpu))
    monkeypatch.setattr(loader, "ToDevice", ToEmulated)
    batches = Batches(dataset, BATCH, 1, device=torch.device("meta"))
    seen: list[tuple[int, bool]] = []

    def step(batch: Any) -> None:
        time.sleep(STEP)
        for sample, image in zip(batch.samples.tolist(), batch.images, strict=True):
            seen.append((sample, torch.equal(image, stored[sample])))

    for epoch in range(EPOCHS):
        for batch in batches.epoch(0, epoch):
            gpu.main.work.put(lambda batch=batch: step(batch))
        gpu.main.synchronize()
    assert all(right for _, right in seen)
    assert sorted(sample for sample, _ in seen) == sorted(EPOCHS * list(stored))
