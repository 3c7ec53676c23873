"""Streams a beton through FFCV's compiled pipeline, with this project's augmentation in it.

Training gives float32 images [B,3,224,224], mean-subtracted and augmented; evaluation gives the
stored uint8 images [B,S,S,3], from which the views are cut. The order of an epoch is a function
of (seed, epoch), every sample is used once, and the last batch may be smaller.
"""

from __future__ import annotations

import contextlib
import math
import queue
from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader
from ffcv.loader import loader as ffcv_loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers import OSCacheManager
from ffcv.pipeline.compiler import Compiler
from ffcv.transforms import ToTensor

from prep.program import UserError
from train.augment import Augment
from train.dataset import Dataset

Order = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """The buffers belong to FFCV and are used again a few batches later."""

    images: torch.Tensor  # float32 [B,3,H,W] for training, uint8 [B,S,S,3] for evaluation
    labels: torch.Tensor  # int64 [B]
    samples: torch.Tensor  # int64 [B], indices into the beton


def epoch_order(samples: int, seed: int, epoch: int) -> Order:
    """The permutation of 0..samples-1 that `epoch` visits (NumPy's PCG64)."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


class _MappedFile(OSCacheManager):  # type: ignore[misc]
    """A beton in memory, read-only, under a numba type of its own.

    FFCV takes numba's uint8[::1] and marks it read-only. All of numba shares that object, so every
    other kernel of the process that writes to uint8 would then fail, such as prep's resize.
    """

    @property
    def state_type(self) -> Any:
        numbers = numba.uint64[::1]
        return numba.types.Tuple(  # type: ignore[no-untyped-call]
            [READ_ONLY_BYTES, numbers, numbers]
        )

    def compile_reader(self) -> Any:
        def read(address: Any, state: Any) -> Any:
            file, pointers, sizes = state
            size = sizes[np.searchsorted(pointers, address)]
            return file[address : address + size]

        return Compiler.compile(read, READ_ONLY_BYTES(numba.uint64, self.state_type))


READ_ONLY_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
ffcv_loader.OSCacheManager = _MappedFile


class _Iterator(EpochIterator):  # type: ignore[misc]
    """FFCV's epoch thread; an exception in it reaches the consumer, who would wait for ever."""

    failure: BaseException | None = None

    def close(self) -> None:
        """End the thread, which may be waiting for room in the queue, and wait until it has."""
        super().close()
        while self.is_alive():
            with contextlib.suppress(queue.Empty):
                self.output_queue.get(timeout=0.01)

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            self.failure = error
            while not self.terminate_event.is_set():
                try:
                    self.output_queue.put(None, timeout=0.5)
                    return
                except queue.Full:
                    continue


class Batches:
    """The batches of a beton, epoch by epoch. `augment` is None for evaluation."""

    def __init__(
        self, dataset: Dataset, batch: int, workers: int, augment: Augment | None = None
    ) -> None:
        most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if workers > most:
            raise UserError(
                f"--workers {workers} is more than this machine's {most}; give --workers {most}, "
                f"or set the environment variable NUMBA_NUM_THREADS to {workers}"
            )
        self._batch = min(batch, len(dataset))  # FFCV allocates five batches
        self._dataset, self._augment = dataset, augment
        operations = [SimpleRGBImageDecoder(), *([augment] if augment else []), ToTensor()]
        threads = torch.get_num_threads()
        self._loader: Any = Loader(
            str(dataset.path),
            batch_size=self._batch,
            num_workers=workers,
            os_cache=True,
            drop_last=False,
            pipelines={"image": operations, "label": [IntDecoder(), ToTensor()]},
        )
        torch.set_num_threads(threads)  # FFCV sets torch's to its own number of workers

    def __len__(self) -> int:
        return math.ceil(len(self._dataset) / self._batch)

    def sequential(self) -> Iterator[Batch]:
        """Every sample once, in the order of the file."""
        return self._run(np.arange(len(self._dataset)))

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Every sample once, in the order of `epoch`, augmented for it."""
        if self._augment is not None:
            self._augment.epoch = epoch
        return self._run(epoch_order(len(self._dataset), seed, epoch))

    def _run(self, order: Order) -> Iterator[Batch]:
        threads = torch.get_num_threads()
        iterator = _Iterator(self._loader, order)
        try:
            for start, (stored, labels) in zip(
                range(0, len(order), self._batch), iterator, strict=False
            ):
                if start == 0:
                    torch.set_num_threads(threads)
                samples = torch.from_numpy(order[start : start + self._batch])
                # Training: NHWC in memory, an NCHW view of it, which torch calls channels_last.
                images = stored.permute(0, 3, 1, 2) if self._augment else stored
                yield Batch(images, labels.flatten(), samples)
            if (failure := iterator.failure) is not None:
                reason = next(iter(str(failure).splitlines()), type(failure).__name__)
                raise UserError(
                    f"{self._dataset.path}: the loader failed: {reason}; check the file with "
                    "`prep verify`"
                ) from failure
        finally:
            iterator.close()
