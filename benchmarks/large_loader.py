"""A beton larger than memory, read for a whole epoch by the loader of `train`.

    python -m benchmarks.large_loader OUT/SPLIT WORK [--count 60000] [--leave GIB] [--workers 2]
        [--orders random quasi-random] [--called TEXT]
        [--out benchmarks/results/large-loader.json]

OUT/SPLIT is a split that `prep resize` made; its pictures are repeated in WORK, as
benchmarks/large_beton.py does it, and written as a raw beton, shuffled: 60,000 are 11.8 GB. For
each order a process of its own reads all of it in batches of uint8, as for a GPU that takes them at
once; before that the file is put out of the page cache (posix_fadvise), which is checked.

Where memory is larger than the file, --leave says how much is to be left for programs and the
page cache: another process holds the rest, and is what the system would kill first. How much of the
file the page cache had is asked after every tenth of the epoch (mincore). Without --leave nothing
is held, for machines or cgroups with less memory than the file has.

The beton is deleted at the end (--keep leaves it, and a WORK that has one is read again).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import mmap
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import large_beton
from benchmarks.machine import machine
from benchmarks.report import tell
from prep import handover
from prep.order import Order
from prep.write import write_beton

GIB = 1 << 30
TENTHS = 10
KILLED_FIRST = "1000"  # proc(5), oom_score_adj


# --------------------------------------------------------------------------- memory


def available() -> int:
    """Bytes that the system can give to programs, or to the page cache."""
    return _figures(Path("/proc/meminfo"))["MemAvailable"] << 10


def _figures(path: Path) -> dict[str, int]:
    """The numbers of a file of /proc, by name."""
    lines = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {name: int(first) for name, first, *_ in filter(_has_number, lines)}


def _has_number(words: list[str]) -> bool:
    return len(words) > 1 and words[1].isdigit()


def _hold(count: int, ready: Connection) -> None:
    Path("/proc/self/oom_score_adj").write_text(KILLED_FIRST)
    held = np.ones(count, np.uint8)
    ready.send(held.nbytes)
    with contextlib.suppress(EOFError):
        ready.recv()


@contextlib.contextmanager
def only(leave: float | None) -> Iterator[None]:
    """Within, all but `leave` GiB of the memory that is available is held."""
    count = 0 if leave is None else available() - int(leave * GIB)
    if count <= 0:
        yield
        return
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_hold, args=(count, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield
        if not process.is_alive():
            raise SystemExit("the held memory was taken back; give a larger --leave")
    finally:
        ours.close()
        process.join()


def resident(path: Path) -> float:
    """Which part of a file is in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        pages = np.zeros(math.ceil(len(mapped) / mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(mapped, np.uint8)
        failed = libc.mincore(
            ctypes.c_void_p(view.ctypes.data),
            ctypes.c_size_t(len(mapped)),
            ctypes.c_void_p(pages.ctypes.data),
        )
        del view
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return float((pages & 1).mean())


def put_out(path: Path) -> float:
    """Put a file out of the page cache; which part of it stays."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident(path)


# --------------------------------------------------------------------------- an epoch


def read_epoch(beton: Path, order: Any, batch: int, workers: int, result: Connection) -> None:
    from train.dataset import open_dataset
    from train.loader import Batches

    dataset = open_dataset(beton)
    batches = Batches(dataset, batch, workers, order=order)
    for _ in zip(range(2), batches.epoch(0, 1), strict=False):  # makes the kernel
        pass
    before = put_out(beton)
    io, steps = _figures(Path("/proc/self/io")), len(batches)
    edges = {math.ceil(steps * tenth / TENTHS): tenth for tenth in range(1, TENTHS + 1)}
    rates: list[int] = []
    shares: list[float] = []
    made, began = 0, time.perf_counter()
    started = began
    epoch = batches.epoch(0, 0)
    for step, made_now in enumerate((len(batch.images) for batch in epoch), 1):
        made += made_now
        if step in edges:
            shares.append(round(resident(beton), 3))  # batches are made meanwhile: it counts
            now = time.perf_counter()
            rates.append(round(made / (now - started)))
            made, started = 0, now
    seconds = started - began
    status = _figures(Path("/proc/self/status"))
    read = _figures(Path("/proc/self/io"))["read_bytes"] - io["read_bytes"]
    size = beton.stat().st_size
    result.send(
        {
            "seconds": round(seconds, 1),
            "images/s": round(len(dataset) / seconds),
            "MB/s": round(size / seconds / 1e6),
            "images/s, tenth by tenth": rates,
            "of the file in the page cache before": round(before, 3),
            "of the file in the page cache, tenth by tenth": shares,
            "read from the disk, of the file's size": round(read / size, 3),
            "memory of the process at its peak, MiB": status["VmHWM"] >> 10,
        }
    )


def epoch_in_a_process(beton: Path, order: str, batch: int, workers: int) -> Any:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=read_epoch, args=(beton, order, batch, workers, theirs)
    )
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit(f"reading {beton} in {order} order failed") from None
    finally:
        process.join()


# --------------------------------------------------------------------------- the report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--leave", type=float, help="GiB for programs and the page cache")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--orders", nargs="+", default=["random", "quasi-random"])
    parser.add_argument("--called", help="what OUT/SPLIT holds, for the report; default: OUT")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder, beton = arguments.work / "out" / "train", arguments.work / "large.beton"
    if not beton.exists():
        large_beton.build(arguments.pictures, folder, arguments.count, None)
        write_beton(folder, beton, "raw", None, Order("shuffled", 0))
        shutil.rmtree(folder.parent)
    with only(arguments.leave):
        left = available()
        epochs = {
            order: epoch_in_a_process(beton, order, arguments.batch, arguments.workers)
            for order in arguments.orders
        }
    size, samples = beton.stat().st_size, handover.read_beton_card(beton).samples
    if not arguments.keep:
        for path in arguments.work.glob("large.*"):
            path.unlink()
    tell(
        {
            "machine": machine(),
            "pictures": f"{arguments.called or arguments.pictures.resolve().parent.name}, repeated",
            "samples": samples,
            "bytes": size,
            "bytes of memory left for programs and the page cache": left,
            "batch": arguments.batch,
            "worker threads": arguments.workers,
            **epochs,
        },
        arguments.out,
    )


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
