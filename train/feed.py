"""Training batches as the network takes them, augmented in one of two ways, with equal values.

- cpu: the loader's threads augment (train.augment): 602 KB a picture go to the device.
- gpu: the stored pixels, 197 KB a picture, go to the device, which augments them
  (train.augment_device). Pictures of another side than the recipe's image_side always go this way,
  a CPU being a device too.

The default is gpu on a CUDA device, since the CPU's cores are then what a network of this size
waits for, else cpu.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Literal

import torch

from prep.handover import Statistics
from prep.program import UserError, first_line
from train import reading
from train.augment import Augment
from train.augment_device import DeviceAugment
from train.augmentation import Augmentation
from train.dataset import Dataset
from train.epoch_order import OrderName, part_size
from train.loader import Batch, Batches

Feed = Literal["cpu", "gpu"]


def choose_feed(
    wanted: Feed | None, device: torch.device, side: int, image_side: int = 256
) -> Feed:
    """The way asked for, or the faster one. Raises UserError for one that there is not.

    side: of the beton's images; image_side: what they are brought to.
    """
    if side == image_side:
        return wanted or ("gpu" if device.type == "cuda" else "cpu")
    if wanted == "cpu":
        raise UserError(
            f"--feed cpu takes images of side {image_side}, these have {side}; leave it out, and "
            "they are resized as they are augmented"
        )
    return "gpu"


def feed_line(feed: Feed, side: int, image_side: int = 256) -> str:
    """For the screen."""
    resized = f", resized from {side} to {image_side} pixels" if side != image_side else ""
    where = "by the loader's threads" if feed == "cpu" else "on the device"
    return f"feed {feed}: images are augmented {where}{resized}"


class Feeding:
    """The training batches of a run, on its device; see Batches for what the arguments say.

    dtype: of what the device augments. On a GPU, to be used after prepare().
    """

    def __init__(
        self,
        dataset: Dataset,
        statistics: Statistics,
        augmentation: Augmentation,
        batch: int,
        workers: int,
        *,
        device: torch.device,
        feed: Feed,
        order: OrderName,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        in_loader = Augment(augmentation, statistics) if feed == "cpu" else None
        self._batches = Batches(
            dataset,
            batch,
            workers,
            in_loader,
            device=device,
            order=order,
            rank=rank,
            world=world,
        )
        self.samples_of = self._batches.samples_of
        self.stored = self._batches.epoch
        self._device = device
        side, part = dataset.card.side, part_size(min(batch, len(dataset)), rank, world)
        self._stored_shape = max(part, 1), side, side, 3
        self._augment: Any = None
        if feed == "gpu":
            self._augment = DeviceAugment(augmentation, statistics, dtype).to(device)

    def __len__(self) -> int:
        return len(self._batches)

    def prepare(self, say: Callable[[str], None]) -> None:
        """Compile what a GPU augments with; says how long it took, or why it could not be."""
        if self._augment is None or self._device.type != "cuda":
            return
        say("compiling the augmentation ...")
        before = time.perf_counter()
        stored = torch.zeros(self._stored_shape, dtype=torch.uint8, device=self._device)
        self._augment, failure = compiled_if_possible(self._augment, stored)
        say(failure or f"augmentation compiled: {time.perf_counter() - before:.1f} s")

    def epoch(self, seed: int, epoch: int, first_step: int = 0) -> Generator[Batch, None, None]:
        """Images [B,3,crop,crop], channels last, of every sample once, from a step on."""
        number = torch.tensor(epoch, device=self._device)
        for batch in self.stored(seed, epoch, first_step):
            yield self.augmented(batch, number)

    def augmented(self, batch: Batch, epoch: torch.Tensor) -> Batch:
        """A batch as the loader gives it (`stored`), for the network; epoch: int64 []."""
        if self._augment is None:
            return batch
        return batch._replace(images=self._augment(batch.images, batch.samples, epoch))


def compiled_if_possible(augment: DeviceAugment, stored_BSSC: torch.Tensor) -> tuple[Any, str]:
    """By torch.compile, for batches like `stored_BSSC`; where that fails as it is, and why."""
    compiled = torch.compile(augment, dynamic=False)
    device = stored_BSSC.device
    try:
        samples = torch.arange(len(stored_BSSC), device=device)
        compiled(stored_BSSC, samples, torch.tensor(0, device=device))
    except Exception as error:  # compilers fail in every way there is
        reason = first_line(error)
        return augment, f"the augmentation is not compiled ({reason}), and slower for it"
    return compiled, ""


def compiled_now() -> bool:
    """Whether this process had to compile a kernel that it has used, not on disk by then."""
    kernels: list[Any] = [reading.read_samples, reading.read_augmented]
    return any(kernel.stats.cache_misses for kernel in kernels)
