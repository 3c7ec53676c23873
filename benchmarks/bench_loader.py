"""Rates of the loader of `train`, one core and two, beside FFCV's own and torch's DataLoader.

    python -m benchmarks.bench_loader [BETON ...] [--called TEXT] [--rounds 7] [--seconds 3]
        [--batch 128] [--out benchmarks/results/loader.json]

BETON is a training beton with its companions, of JPEGs or raw; without one, pictures of `prep
sample` are drawn, prepared, and written as both. All ways read the same records, in the page cache
or in memory, in random order and in batches of one size; what the DataLoader opens are files of
the beton's own JPEGs. The crop is the network's.

Each way runs in a process that lives as long as its beton is measured, one for one core and one for
two. That for one core is bound to one, so that no other thread of it finds a second; loaders get
one thread or two, the DataLoader no workers or two. A round goes through every way, with one core
and then with two, each for at least --seconds of whole epochs (parts: a third of that). The first
round, in which kernels are compiled and workers started, is thrown away, and ratios are taken
within a round.

The floor is FFCV's imdecode in a compiled loop over records in memory, into one buffer a thread,
which stays in the core's cache. FFCV's own crop is RandomResizedCropRGBImageDecoder with the crop's
area and ratio 1: the same places and no resize (RandomTranslate gives padded 256x256). It has
neither mean image nor colour noise; its pictures are less the channels' mean. benchmarks/
loader_ways.py and loader_pillow.py are the ways themselves.

"a sample on one core" is what parts of ours cost alone, in the same rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loader_ways as ways
from benchmarks.loader_ways import CPU, DECODE, GPU, PAPER, WRITE_UPS, Task
from benchmarks.machine import bound, machine
from benchmarks.report import spread, tell
from prep import handover, plan, resize
from prep.sample import draw_sample
from prep.sources import find_source
from prep.write import write_beton

WAYS = (  # what targets compare stands together
    (ways.OURS, DECODE),
    (ways.OURS, GPU),
    (ways.OURS, CPU),
    (ways.THEIRS, ways.LOADER),
    (ways.THEIRS, ways.NORMALIZE),
    (ways.THEIRS, ways.CONVERT),
    (ways.PILLOW, PAPER),
    (ways.PILLOW, WRITE_UPS),
)
PARTS = (
    ways.READ,
    ways.CRC32,
    DECODE,
    ways.IN_ORDER,
    ways.BATCHES,
    ways.FIVE_BATCHES,
    ways.MAPPED,
    ways.NEW_MAPPING,
    ways.SAMPLES,
    ways.AUGMENT,
)
RATIOS = (
    (GPU, DECODE),
    (CPU, DECODE),
    (GPU, ways.LOADER),
    (CPU, ways.NORMALIZE),
    (CPU, ways.CONVERT),
    (CPU, PAPER),
    (CPU, WRITE_UPS),
)
CORES = {1: "one core", 2: "two cores"}
TWO_TO_ONE = (DECODE, GPU, CPU, ways.LOADER, ways.NORMALIZE, PAPER)
TARGETS = {  # of JPEGs
    f"{GPU} / {DECODE}": 0.92,
    f"{CPU} / {DECODE}": 0.75,
    f"{CPU} / {PAPER}": 3.5,
    f"{CPU} / {WRITE_UPS}": 9.0,
    f"{GPU}, two cores / one core": 1.9,
    f"{CPU}, two cores / one core": 1.9,
}


# --------------------------------------------------------------------------- the processes


class Crew:
    """A process that has one kind of ways, on so many cores."""

    def __init__(self, kind: str, task: Task, cores: int) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=ways.serve, args=(theirs, kind, task, cores))
        with bound(cores):
            self._process.start()
        theirs.close()
        self.ways: list[str] = self._pipe.recv()

    def rate(self, way: str, seconds: float) -> float:
        """Images/s, for at least so long."""
        self._pipe.send((way, seconds))
        rate: float = self._pipe.recv()
        return rate

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


# --------------------------------------------------------------------------- the report


def measure(task: Task, rounds: int, seconds: float) -> dict[str, Any]:
    available = machine()["cores"]
    with contextlib.ExitStack() as stack:
        crews: dict[tuple[str, int], Crew] = {}
        for kind in ways.KINDS:
            for cores in CORES:
                if cores <= available:
                    crews[kind, cores] = Crew(kind, task, cores)
                    stack.callback(crews[kind, cores].close)
        rates: dict[tuple[str, int], list[float]] = {}
        costs: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for kind, way in WAYS:
                for cores in CORES:
                    if (kind, cores) in crews and way in crews[kind, cores].ways:
                        rate = crews[kind, cores].rate(way, seconds)
                        if number > 0:
                            rates.setdefault((way, cores), []).append(rate)
            for part in PARTS:
                if part in crews[ways.OURS, 1].ways:
                    rate = crews[ways.OURS, 1].rate(part, seconds / 3)
                    if number > 0:
                        name = ways.ONE_BUFFER if part == DECODE else part
                        costs.setdefault(name, []).append(1e6 / rate)
    return report(rates, costs)


def report(
    rates: dict[tuple[str, int], list[float]], costs: dict[str, list[float]]
) -> dict[str, Any]:
    """rates: images/s of (way, cores), round by round; costs: us a sample of each part."""

    def ratio(way: str, cores: int, other: str, other_cores: int) -> dict[str, float]:
        pairs = zip(rates[way, cores], rates[other, other_cores], strict=True)
        return spread([a / b for a, b in pairs])

    names = dict.fromkeys(way for way, _ in rates)
    return {
        "images/s": {
            way: {text: spread(rates[way, n]) for n, text in CORES.items() if (way, n) in rates}
            for way in names
        },
        "ratios": {
            f"{way} / {other}": {
                text: ratio(way, n, other, n)
                for n, text in CORES.items()
                if (way, n) in rates and (other, n) in rates
            }
            for way, other in RATIOS
            if way in names and other in names
        }
        | {
            f"{way}, two cores / one core": ratio(way, 2, way, 1)
            for way in TWO_TO_ONE
            if (way, 2) in rates
        },
        "a sample on one core, microseconds": {part: spread(us) for part, us in costs.items()},
    }


# --------------------------------------------------------------------------- what is read


def open_task(beton: Path, folder: Path, batch: int) -> Task:
    """A beton, and its JPEGs as files below `folder`."""
    from train.dataset import open_dataset
    from train.recipe import load_recipe

    dataset = open_dataset(beton)
    raw = dataset.card.mode == "raw"
    files: list[Path] = []
    if not raw:
        folder.mkdir()
        records = dataset.records
        with beton.open("rb") as file:
            for number in np.arange(len(dataset)):
                path = folder / f"{number}.jpg"
                file.seek(int(records.ptr[number]))
                path.write_bytes(file.read(int(records.size[number])))
                files.append(path)
    return Task(beton, raw, files, dataset.labels.tolist(), batch, load_recipe("paper").crop)


def draw_betons(folder: Path) -> list[Path]:
    """Drawn pictures, prepared; as JPEGs and raw."""
    draw_sample(folder / "source", 10, 200, 10, 0, None, lambda *_: None)
    prepared = folder / "out"
    resize.resize(find_source(folder / "source", ("train",)), prepared, plan.Options())
    from prep import stats

    stats.measure(prepared / "train", None)
    betons = [folder / f"{mode}.beton" for mode in ("jpg", "raw")]
    for beton in betons:
        write_beton(prepared / "train", beton, beton.stem, None)
    return betons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("betons", type=Path, nargs="*", metavar="BETON")
    parser.add_argument("--called", help="what the betons hold; default: their folders' names")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        betons = arguments.betons or draw_betons(folder)
        found: dict[str, Any] = {}
        for number, beton in enumerate(betons):
            card = handover.read_beton_card(beton)
            what = f"quality {card.quality}" if card.mode == "jpg" else "raw"
            task = open_task(beton, folder / f"files {number}", arguments.batch)
            sizes = handover.read_records(handover.records_path(beton)).size
            found[what] = {
                "samples": card.samples,
                "mean_bytes": round(float(sizes.mean())),
                **measure(task, arguments.rounds, arguments.seconds),
            }
    tell(
        {
            "machine": machine(),
            "pictures": arguments.called
            or (betons[0].resolve().parent.name if arguments.betons else "prep sample"),
            "batch": arguments.batch,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "targets": TARGETS,
            **found,
        },
        arguments.out,
    )


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
