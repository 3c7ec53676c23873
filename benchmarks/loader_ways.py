"""The ways of reading a beton that benchmarks.bench_loader compares, in processes of their own.

A way is called with how many pictures are wanted, and returns how many it has made; most make a
whole epoch whatever is wanted. FFCV's own Loader marks numba's type of uint8 arrays as read-only
for the whole process, and forked workers do not go with numba's threads: so there are three kinds
of processes, OURS (with decoding alone, and parts of ours), THEIRS and PILLOW.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

Way = Callable[[int], int]

DECODE = "FFCV's imdecode alone, in memory"
GPU = "ours, uint8 for the GPU"
CPU = "ours, float32 on the CPU"
LOADER = "FFCV's Loader, SimpleRGBImageDecoder alone"
NORMALIZE = "FFCV's Loader, crop, flip, NormalizeImage"
CONVERT = "FFCV's Loader, crop, flip, Convert, torchvision's Normalize"
PAPER = "DataLoader, PIL and NumPy"
WRITE_UPS = "DataLoader, PIL and NumPy, PCA of each picture"

READ = "pread, of the page cache"
CRC32 = "crc32"
ONE_BUFFER = "imdecode into one buffer"
IN_ORDER = "imdecode into one buffer, in the order of the file"
BATCHES = "imdecode into a batch, again and again"
FIVE_BATCHES = "imdecode into five batches, as many as the loader has"
MAPPED = "imdecode into a batch, from a mapping"
NEW_MAPPING = "imdecode into a batch, from a mapping made anew: with its faults"
SAMPLES = "read_samples: pread, crc32, imdecode into a batch"
AUGMENT = "the augmentation of a picture in the cache"

OURS, THEIRS, PILLOW = "ours", "theirs", "pillow"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is read: a beton, and the files of its records (none where it is raw)."""

    beton: Path
    raw: bool
    files: list[Path]
    labels: list[int]
    batch: int
    crop: int


# --------------------------------------------------------------------------- ours


def our_ways(task: Task, cores: int) -> dict[str, Way]:
    from train.augment import Augment
    from train.augmentation import of_recipe
    from train.dataset import open_dataset, training_statistics
    from train.loader import Batches
    from train.recipe import load_recipe

    dataset = open_dataset(task.beton)
    augment = Augment(of_recipe(load_recipe("paper")), training_statistics(dataset))
    epochs = itertools.count()

    def epoch(batches: Batches, _: int) -> int:
        return sum(len(batch.images) for batch in batches.epoch(0, next(epochs)))

    ways: dict[str, Way] = {
        GPU: functools.partial(epoch, Batches(dataset, task.batch, cores)),
        CPU: functools.partial(epoch, Batches(dataset, task.batch, cores, augment)),
    }
    return parts(task, dataset, augment, cores) | ways


def parts(task: Task, dataset: Any, augment: Any, cores: int) -> dict[str, Way]:
    """Decoding alone, with numba's threads; what a core does for a sample, with one.

    In random order, as loaders read; IN_ORDER shows what the file's order is worth, much where a
    beton repeats its pictures side by side.
    """
    from ffcv import libffcv
    from numba import get_num_threads, njit, prange, set_num_threads

    from train.augment import augment_image
    from train.crc32 import crc32
    from train.reading import Reading, read_samples, thread_number

    set_num_threads(min(cores, get_num_threads()))  # of this thread; loaders have their own
    imdecode = njit(nogil=True, fastmath=True, error_model="numpy")(libffcv.imdecode)  # as FFCV
    pread = njit(nogil=True)(libffcv.read)
    records = dataset.records
    count, side = len(records.ptr), dataset.card.side
    order, batch = np.random.default_rng(0).permutation(count), min(task.batch, count)
    ptr, size = (column[order].astype(np.int64) for column in (records.ptr, records.size))

    @njit(parallel=True, nogil=True)
    def decode(data: Any, ptr: Any, size: Any, out: Any, by_thread: bool) -> None:
        side = out.shape[1]
        for i in prange(len(ptr)):
            record = data[ptr[i] : ptr[i] + size[i]]
            pixels = out[thread_number() if by_thread else i % len(out)]
            imdecode(record, pixels, side, side, side, side, 0, 0, 1, 1, False, False)

    @njit(nogil=True)
    def read(file: int, ptr: Any, size: Any, scratch: Any) -> None:
        for i in range(len(ptr)):
            pread(file, scratch[: size[i]], ptr[i])

    @njit(nogil=True)
    def check(data: Any, ptr: Any, size: Any) -> int:
        total = 0
        for i in range(len(ptr)):
            total += crc32(data[ptr[i] : ptr[i] + size[i]])
        return total

    def whole(do: Callable[..., object], *arguments: Any) -> Way:
        def way(_: int) -> int:
            do(*arguments)
            return count

        return way

    reading = Reading(task.beton, records, side, task.raw)
    pixels = np.zeros((batch, side, side, 3), np.uint8)
    crops = np.zeros((batch, task.crop, task.crop, 3), np.float32)
    ways = {READ: whole(read, reading.file, ptr, size, np.zeros(size.max(), np.uint8))}
    scratch = np.zeros((64, 0 if task.raw else size.max()), np.uint8)
    nothing, status = np.empty(0, np.int64), np.zeros(batch, np.uint8)

    def samples(_: int) -> int:
        for start in range(0, count, batch):
            chosen = order[start : start + batch]
            read_samples(reading.stored, chosen, nothing, scratch, pixels, status)
        return count

    @njit(nogil=True)
    def augment_one(image: Any, crops: Any, count: int, run: Any) -> None:
        for i in range(count):
            augment_image(image, crops[i % len(crops)], i, 0, run)

    ways |= {
        SAMPLES: samples,
        AUGMENT: whole(augment_one, pixels[0], crops, count, augment.tables),
    }
    if task.raw:
        return ways
    data = np.fromfile(task.beton, np.uint8)
    mapped = np.memmap(task.beton, np.uint8, "r")
    one = np.zeros((64, side, side, 3), np.uint8)  # for each thread
    five = np.zeros((5 * batch, side, side, 3), np.uint8)
    return ways | {
        DECODE: whole(decode, data, ptr, size, one, True),
        CRC32: whole(check, data, ptr, size),
        IN_ORDER: whole(decode, data, np.sort(ptr), size[np.argsort(ptr)], one, True),
        BATCHES: whole(decode, data, ptr, size, pixels, False),
        FIVE_BATCHES: whole(decode, data, ptr, size, five, False),
        MAPPED: whole(decode, mapped, ptr, size, pixels, False),
        NEW_MAPPING: whole(
            lambda: decode(np.memmap(task.beton, np.uint8, "r"), ptr, size, pixels, False)
        ),
    }


# --------------------------------------------------------------------------- the others


def their_ways(task: Task, cores: int) -> dict[str, Way]:
    """FFCV's own, as its users write them for a CPU; normalised by the channels' mean."""
    import torch
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        Convert,
        NormalizeImage,
        RandomHorizontalFlip,
        ToTensor,
        ToTorchImage,
    )
    from torchvision.transforms import Normalize

    from prep import handover

    statistics = handover.read_statistics(handover.stats_path(task.beton))
    mean, deviation = statistics.channel_mean, np.sqrt(np.diag(statistics.covariance))
    area = (task.crop / statistics.side) ** 2  # a crop of that area and ratio 1 is not resized

    def crop() -> list[Any]:
        size = (task.crop, task.crop)
        return [
            RandomResizedCropRGBImageDecoder(size, (area, area), (1.0, 1.0)),
            RandomHorizontalFlip(),
        ]

    def epochs(pipelines: dict[str, Any]) -> Way:
        loader = Loader(
            str(task.beton),
            batch_size=task.batch,
            num_workers=cores,
            os_cache=True,
            order=OrderOption.RANDOM,
            drop_last=False,
            pipelines=pipelines,
        )
        return lambda _: sum(len(batch[0]) for batch in loader)

    normalize = NormalizeImage(mean, deviation, np.float32)
    convert = [ToTensor(), ToTorchImage(), Convert(torch.float32)]
    return {
        LOADER: epochs({"image": [SimpleRGBImageDecoder()], "label": None}),
        NORMALIZE: epochs({"image": [*crop(), normalize, ToTensor()]}),
        CONVERT: epochs(
            {"image": [*crop(), *convert, Normalize(mean.tolist(), deviation.tolist())]}
        ),
    }


def pillow_ways(task: Task, cores: int) -> dict[str, Way]:
    from benchmarks.loader_pillow import Pictures, PreparedFiles
    from prep import handover

    if not task.files:
        return {}
    statistics = handover.read_statistics(handover.stats_path(task.beton))
    return {
        name: Pictures(
            PreparedFiles(task.files, task.labels, statistics, task.crop, of_each),
            task.batch,
            cores,
        )
        for name, of_each in ((PAPER, False), (WRITE_UPS, True))
    }


# --------------------------------------------------------------------------- the processes

KINDS = {OURS: our_ways, THEIRS: their_ways, PILLOW: pillow_ways}


def serve(questions: Connection, kind: str, task: Task, cores: int) -> None:
    """Measures what it is told by name, images/s, until the parent hangs up."""
    ways = KINDS[kind](task, cores)
    rates: dict[str, float] = {}
    questions.send(list(ways))
    while True:
        try:
            name, seconds = questions.recv()
        except EOFError:
            return
        wanted = math.ceil(rates.get(name, 0.0) * seconds)
        made, started = 0, time.perf_counter()
        while made == 0 or time.perf_counter() - started < seconds:
            made += ways[name](max(wanted - made, 0))
        rates[name] = made / (time.perf_counter() - started)
        questions.send(rates[name])
