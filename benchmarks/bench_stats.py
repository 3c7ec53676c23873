"""Rates of `prep stats`, one and two workers, beside decoding the same JPEGs alone.

    python -m benchmarks.bench_stats [SRC] [--rounds 7] [--pictures 1000]
        [--out benchmarks/results/stats.json]

SRC holds originals as `prep resize` takes them; without it, pictures of `prep sample` are drawn.
They are prepared, and written as a beton; all ways run on the same prepared JPEGs, in the page
cache, in worker processes that live as long as the benchmark. A round goes through every way, with
one worker and then with two; the first round is thrown away, and ratios are taken within a round.

The floors decode into one buffer that is used again: by the function that FFCV's loader calls
(ffcv.libffcv.imdecode, from Python) and by simplejpeg with the same fast DCT. "in memory" has the
bytes already; "from files" reads each file as Python does it plainly. "a unit" is what a worker of
`prep stats` does with the pictures: it is unpickled, reads, checks every crc32, decodes and sums,
and its sums are pickled. The target: 0.85 of FFCV's imdecode. "the sums alone" are of one group of
pictures (prep.moments) again and again.

"the parent at ImageNet's size" reads a manifest of 1,281,167 records and cuts, pickles and merges
all units, with workers that do nothing: its own time for each picture, and its peak of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg

from benchmarks.machine import machine
from benchmarks.report import spread, tell
from prep import handover, moments, plan, prepared, resize, stats, stats_source
from prep.handover import Card
from prep.manifest import load
from prep.sample import draw_sample
from prep.sources import find_source
from prep.write import write_beton

FLOORS = (
    "FFCV's imdecode, in memory",
    "FFCV's imdecode, from files",
    "simplejpeg, in memory",
    "simplejpeg, from files",
)
UNITS = ("a unit of `prep stats` on the prepared set", "a unit of `prep stats` on the beton")
SUMS = "the sums alone"


# --------------------------------------------------------------------------- the ways


class Ways:
    """What a worker can do with its share of the pictures."""

    def __init__(self, folder: Path, number: int, workers: int, pictures: int) -> None:
        from ffcv.libffcv import imdecode

        self.imdecode = imdecode
        sources = [stats_source.open_training(folder / name) for name in ("train", "b/train.beton")]
        self.side = sources[0].card.side
        chosen = [source.places(0, len(source))[:pictures][number::workers] for source in sources]
        self.paths = [str(place.path) for place in chosen[0]]
        self.data = [place.read() for place in chosen[0]]
        self.buffer = np.empty((self.side, self.side, 3), np.uint8)
        self.by_name: dict[str, Callable[[], None]] = {
            FLOORS[0]: functools.partial(self.ffcv, self.in_memory),
            FLOORS[1]: functools.partial(self.ffcv, self.from_files),
            FLOORS[2]: functools.partial(self.simplejpeg, self.in_memory),
            FLOORS[3]: functools.partial(self.simplejpeg, self.from_files),
            SUMS: self.sums,
        }
        for name, source, places in zip(UNITS, sources, chosen, strict=True):
            unit = pickle.dumps(stats.Unit(0, places, self.side, source.read))
            self.by_name[name] = functools.partial(self.unit, unit)

    def in_memory(self) -> Iterator[bytes]:
        yield from self.data

    def from_files(self) -> Iterator[bytes]:
        for path in self.paths:
            with open(path, "rb") as file:  # noqa: PTH123, a Path takes longer
                yield file.read()

    def ffcv(self, read: Callable[[], Iterator[bytes]]) -> None:
        side = self.side
        for data in read():
            source = np.frombuffer(data, np.uint8)
            self.imdecode(source, self.buffer, side, side, side, side)

    def simplejpeg(self, read: Callable[[], Iterator[bytes]]) -> None:
        for data in read():
            simplejpeg.decode_jpeg(data, "RGB", fastdct=True, buffer=self.buffer)

    def sums(self) -> None:
        def nothing(number: int, slot: moments.Pixels) -> None:
            """The slot keeps what it has."""

        moments.sum_pictures(len(self.data), self.side, nothing)

    def unit(self, unit: bytes) -> None:
        pickle.dumps(stats.unit_moments(pickle.loads(unit)))


# --------------------------------------------------------------------------- the workers


def serve(questions: Connection, folder: Path, number: int, workers: int, pictures: int) -> None:
    """Does what it is told by name, until the parent hangs up."""
    ways = Ways(folder, number, workers, pictures)
    questions.send(list(ways.by_name))
    while True:
        try:
            name = questions.recv()
        except EOFError:
            return
        ways.by_name[name]()
        questions.send(name)


class Workers:
    """`count` processes, each with its share of the pictures."""

    def __init__(self, count: int, folder: Path, pictures: int) -> None:
        self.pictures = pictures
        self.pipes = []
        for number in range(count):
            ours, theirs = multiprocessing.Pipe()
            multiprocessing.Process(
                target=serve, args=(theirs, folder, number, count, pictures), daemon=True
            ).start()
            theirs.close()
            self.pipes.append(ours)
        ways: list[list[str]] = [pipe.recv() for pipe in self.pipes]
        self.ways = ways[0]

    def rate(self, way: str) -> float:
        """Images/s of all workers together."""
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(way)
        for pipe in self.pipes:
            pipe.recv()
        return self.pictures / (time.perf_counter() - started)


def measure(folder: Path, pictures: int, rounds: int) -> dict[str, Any]:
    crews = {count: Workers(count, folder, pictures) for count in (1, 2)}
    ways = crews[1].ways
    rates: dict[str, dict[int, list[float]]] = {way: {1: [], 2: []} for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            for count, workers in crews.items():
                rate = workers.rate(way)
                if number > 0:
                    rates[way][count].append(rate)

    def ratio(way: str, other: str, count: int) -> dict[str, float]:
        pairs = zip(rates[way][count], rates[other][count], strict=True)
        return spread([a / b for a, b in pairs])

    return {
        "images/s": {
            way: {f"{count} workers": spread(values) for count, values in counts.items()}
            for way, counts in rates.items()
        },
        "us an image, the sums alone": spread([1e6 / rate for rate in rates[SUMS][1]]),
        "ratios": {
            f"{unit} / {floor}": {f"{count} workers": ratio(unit, floor, count) for count in crews}
            for unit in UNITS
            for floor in FLOORS
        },
    }


# --------------------------------------------------------------------------- the parent


def write_large_manifest(folder: Path, card: Card) -> None:
    """A prepared split of ImageNet's size, as far as its manifest and card."""
    classes = load("imagenet-1k").classes
    counts = [known.images["train"] for known in classes]
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    digests = generator.integers(0, 256, (len(labels), 32), dtype=np.uint8)

    def tables() -> Iterator[pa.Table]:
        start = 0
        for label, (known, count) in enumerate(zip(classes, counts, strict=True)):
            names = [f"{known.folder}/{known.folder}_{number}.JPEG" for number in range(count)]
            columns: dict[str, Any] = {
                "class": [known.folder] * count,
                "label": [label] * count,
                "name": names,
                "shard": [None] * count,
                "offset": [0] * count,
                "source": names,
                "width": [500] * count,
                "height": [375] * count,
                "kind": ["JPEG YCbCr"] * count,
                "bytes": generator.integers(20_000, 40_000, count),
                "crc32": generator.integers(0, 2**32, count),
                "sha256": [digest.tobytes() for digest in digests[start : start + count]],
                "status": ["ok"] * count,
                "reason": [None] * count,
            }
            start += count
            yield pa.table(columns, schema=prepared.SCHEMA)

    (folder / "train").mkdir(parents=True)
    prepared.write_manifest(tables(), {}, prepared.manifest_path(folder / "train"))
    large = dataclasses.replace(
        card,
        samples=len(labels),
        classes=tuple(
            handover.ClassEntry(known.folder, known.name, count)
            for known, count in zip(classes, counts, strict=True)
        ),
        pixels_id=handover.pixels_id(labels, digests),
    )
    handover.write_card(large, prepared.split_card_path(folder / "train"))


PARENT = """
import json, pickle, sys, time
from pathlib import Path
from prep import stats
from prep.moments import Moments, zero_moments

def no_workers(function, units, jobs):
    for unit in units:
        pickle.dumps(unit)
        zero = zero_moments(unit.side)
        yield unit.number, Moments(len(unit.places), zero.pixel_sums, zero.product_sums)

stats.run_units = no_workers
began, cpu = time.perf_counter(), time.process_time()
count = stats.measure(Path(sys.argv[1]), 2).statistics.count
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "pictures": count,
    "seconds": round(time.perf_counter() - began, 2),
    "us a picture, of a core": round((time.process_time() - cpu) / count * 1e6, 2),
    "memory at its peak, MiB": int(status["VmHWM"].split()[0]) >> 10,
}))
"""


def parent_at_full_size(folder: Path, card: Card) -> dict[str, float]:
    write_large_manifest(folder, card)
    ended = subprocess.run(
        [sys.executable, "-c", PARENT, str(folder / "train")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(ended.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.source or folder / "prep sample"
        if arguments.source is None:
            draw_sample(source, 10, 100, 10, 0, None, lambda *_: None)
        found = find_source(source, ("train",))
        resize.resize(found, folder / "out", plan.Options(max_rejects=1.0))
        (folder / "out" / "b").mkdir()
        written = write_beton(
            folder / "out" / "train", folder / "out" / "b" / "train.beton", "jpg", None
        )
        split = prepared.open_prepared(folder / "out" / "train")
        pictures = min(arguments.pictures, len(split))
        report = {
            "machine": machine(),
            "source": source.name,
            "pictures": pictures,
            "mean_bytes": round(statistics.mean(split.sizes[:pictures].tolist())),
            "rounds": arguments.rounds,
            **measure(folder / "out", pictures, arguments.rounds),
            "the parent at ImageNet's size": parent_at_full_size(folder / "large", written.card),
        }
    tell(report, arguments.out)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
