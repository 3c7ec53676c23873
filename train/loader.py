"""Streams a beton through FFCV, with this project's reading and augmentation in its pipeline.

Two ways to feed a network (`feed`), with equal values to rounding:

- cpu: the loader's threads augment each picture as they decode it; a batch is float32
  [B,3,crop,crop], channels last.
- gpu: a batch is the stored pixels, uint8 [B,S,S,3], on the device; train.augment_device makes the
  rest of them there. Evaluation is always like this: its views are cut from one decoded picture.

What an epoch visits, in which order, is a function of (seed, epoch) (train.epoch_order): the same
batches for any number of processes, from any step on. The last batch may be smaller.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
import torch
from ffcv.loader import Loader
from ffcv.loader import loader as ffcv_loader
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.pipeline_spec import PipelineSpec
from ffcv.transforms import ToDevice, ToTensor

from prep.program import UserError
from train.augment import Augment
from train.dataset import Dataset
from train.epoch_order import Order, OrderName, epoch_order, part_of_batches, part_size, step_count
from train.epoch_thread import EpochThread, PipelineThread
from train.readahead import ReadAhead
from train.reading import Buffer, Labels, Reading, cached

Feed = Literal["cpu", "gpu"]

STALL = 300.0  # seconds without a batch, after which a run ends
AHEAD = 3  # batches that are made before they are asked for (FFCV's own figure)


class Batch(NamedTuple):
    """The buffers belong to the loader and are used again a few batches later."""

    images: torch.Tensor  # float32 [B,3,H,W] where the loader augments, else uint8 [B,S,S,3]
    labels: torch.Tensor  # int64 [B]
    samples: torch.Tensor  # int64 [B], indices into the beton


class Batches:
    """The batches of a beton, epoch by epoch; of each, the part of process `rank` of `world`.

    batch: samples of all processes together; workers: threads of this one; augment: None for
    evaluation and for the gpu way; device: where batches are to be; stall: seconds.
    Raises UserError when there are fewer samples in a batch than processes, or too many workers.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        workers: int,
        augment: Augment | None = None,
        *,
        device: torch.device | None = None,
        order: OrderName = "random",
        rank: int = 0,
        world: int = 1,
        stall: float = STALL,
    ) -> None:
        most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if workers > most:
            raise UserError(
                f"--workers {workers} is more than this machine's {most}; give --workers {most}, "
                f"or set the environment variable NUMBA_NUM_THREADS to {workers}"
            )
        self._batch = min(batch, len(dataset))  # the loader has five batches in memory
        if batch < world:
            raise UserError(
                f"a batch of {batch} cannot be divided among {world} processes; give a larger "
                "--set batch=, or fewer processes"
            )
        self._dataset, self._augment, self._order = dataset, augment, order
        self._device = device or torch.device("cpu")
        self._rank, self._world, self._stall = rank, world, stall
        card = dataset.card
        self._reading = Reading(
            dataset.path, dataset.records, card.side, card.mode == "raw", augment
        )
        self._loader = self._make_loader(workers)
        self._pipeline = PipelineThread(workers)
        weakref.finalize(self, self._pipeline.stop)
        self._iterator: EpochThread | None = None
        side, dtype = (augment.crop, torch.float32) if augment else (card.side, torch.uint8)
        self._no_images = torch.empty(0, side, side, 3, dtype=dtype, device=self._device)
        self._no_labels = torch.empty(0, 2, dtype=torch.int64, device=self._device)

    def __len__(self) -> int:
        return step_count(len(self._dataset), self._batch)

    def samples_of(self, step: int) -> int:
        """How many samples all processes together have in a step of an epoch, counted from 0."""
        return min(self._batch, len(self._dataset) - step * self._batch)

    def sequential(self) -> Generator[Batch, None, None]:
        """Every sample once, in the order of the file."""
        return self._run(np.arange(len(self._dataset)), 0)

    def epoch(self, seed: int, epoch: int, first_step: int = 0) -> Generator[Batch, None, None]:
        """Every sample once, in the order of `epoch`, augmented for it, from a step on."""
        if self._augment is not None:
            self._augment.epoch = epoch
        return self._run(epoch_order(self._order, self._dataset.pages, seed, epoch), first_step)

    def _make_loader(self, workers: int) -> Any:
        """FFCV's, around operations that need no compiling but numba's own, kept on disk."""
        side, threads = self._dataset.card.side, torch.get_num_threads()
        memory = Buffer((side, side, 3), np.uint8)
        if self._augment is not None:
            memory = Buffer((self._augment.crop, self._augment.crop, 3), np.float32)
        images = [self._reading, ToTensor()]
        labels = [Labels(self._dataset.labels), ToTensor()]
        ahead = ReadAhead(self._reading, self._order, self._dataset.pages, self._dataset.page_size)
        if self._device.type != "cpu":
            unwaited = self._device.type == "cuda"  # whose streams EpochThread waits for
            images.append(ToDevice(self._device, unwaited))
            labels.append(ToDevice(self._device, unwaited))
        its_own = ffcv_loader.OSCacheManager
        ffcv_loader.OSCacheManager = lambda _: ahead
        Compiler.set_enabled(False)
        try:
            loader: Any = Loader(
                str(self._dataset.path),
                batch_size=max(part_size(self._batch, self._rank, self._world), 1),
                num_workers=workers,
                os_cache=True,
                drop_last=False,
                batches_ahead=AHEAD,
                pipelines={
                    "image": PipelineSpec("image", memory, images),
                    "label": PipelineSpec("label", Buffer((2,), np.int64), labels),
                },
            )
        finally:
            Compiler.set_enabled(True)
            ffcv_loader.OSCacheManager = its_own
            torch.set_num_threads(threads)  # FFCV sets torch's to its own number of workers
        buffers = loader.graph.allocate_memory(loader.batch_size, AHEAD + 2)
        if self._device.type == "cpu" and self._augment is None:
            of_nodes = buffers["operation"]
            for node, memory in of_nodes.items():
                if memory is not None and memory.dtype == np.uint8:  # not the labels
                    of_nodes[node] = cached(memory.shape)
        loader.graph.allocate_memory = lambda *_: buffers  # once, not for every epoch
        return loader

    def _run(self, order: Order, first_step: int) -> Generator[Batch, None, None]:
        if self._iterator is not None:
            raise RuntimeError("the epoch before has not ended, and its memory is to be used again")
        part = part_of_batches(order, self._batch, self._rank, self._world, first_step)
        steps = len(self) - first_step
        if steps == 0:
            return
        threads = torch.get_num_threads()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the last epoch's batches are still in use
        self._iterator = EpochThread(self._loader, part, self._reading, self._stall, self._pipeline)
        try:
            for step in range(steps):
                if step * self._loader.batch_size < len(part):
                    images, labels = next(self._iterator)
                else:  # fewer samples than processes are left for the last batch
                    images, labels = self._no_images, self._no_labels
                if step == 0:
                    torch.set_num_threads(threads)
                # Training: NHWC in memory, an NCHW view of it, which torch calls channels_last.
                yield Batch(
                    images.permute(0, 3, 1, 2) if self._augment else images,
                    labels[:, 0],
                    labels[:, 1],
                )
        finally:
            self._iterator.close()
            self._iterator = None


def evaluation_batches(
    dataset: Dataset,
    batch: int,
    workers: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """Stored pixels, in the order of the file; see Batches."""
    return Batches(
        dataset, batch, workers, device=device, order="sequential", rank=rank, world=world
    )
