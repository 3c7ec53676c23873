"""Rates of preparing pictures, one and two workers, beside other ways of doing it.

    python -m benchmarks.bench_resize [SRC] [--rounds 5] [--pictures 1000]
        [--img2dataset SITE_PACKAGES] [--out benchmarks/results/resize.json]

SRC holds originals in any folders; without it, pictures of `prep sample` are drawn. All ways run on
the same whole JPEGs, in worker processes that live as long as the benchmark. A round goes through
every way, with one worker and then with two; the first round is thrown away, and ratios are taken
within a round. Originals are in the page cache.

img2dataset is no dependency: name the site-packages folder of an environment that has it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.machine import bound, machine
from benchmarks.report import spread, tell
from benchmarks.resize_ways import (
    FLOORS,
    IMG2DATASET,
    RESIZES,
    SIDE,
    TAR_UNIT,
    TORCHVISION,
    TURBO,
    UNIT,
    WRITTEN,
    Ways,
)
from prep import scale
from prep.images import BACKENDS
from prep.sample import draw_sample

# --------------------------------------------------------------------------- the workers


def serve(questions: Connection, paths: list[Path], out: Path, img2dataset: Path | None) -> None:
    """Does what it is told by name, until the parent hangs up.

    What was written stays: to make a file, ext4 looks for an inode that was not in use for five
    seconds, which takes 0.1 ms where many files have just been deleted.
    """
    ways = Ways(paths, out, img2dataset)
    questions.send(list(ways.by_name))
    for number in itertools.count():
        try:
            name = questions.recv()
        except EOFError:
            return
        ways.out = out / str(number)
        ways.out.mkdir(parents=True)
        os.sync()  # nobody waits for what another way has written
        questions.send("ready")
        questions.recv()
        ways.by_name[name]()
        questions.send(name)


class Workers:
    """`count` processes, each with its share of the pictures."""

    def __init__(self, count: int, paths: list[Path], out: Path, img2dataset: Path | None) -> None:
        self.pictures = len(paths)
        self.pipes = []
        for number in range(count):
            ours, theirs = multiprocessing.Pipe()
            share = paths[number::count]
            with bound(count):  # one worker has one core for all its threads
                multiprocessing.Process(
                    target=serve,
                    args=(theirs, share, out / f"{count}.{number}", img2dataset),
                    daemon=True,
                ).start()
            theirs.close()
            self.pipes.append(ours)
        ways: list[list[str]] = [pipe.recv() for pipe in self.pipes]
        self.ways = ways[0]

    def rate(self, way: str) -> float:
        """Images/s of all workers together."""
        for pipe in self.pipes:
            pipe.send(way)
        for pipe in self.pipes:
            pipe.recv()  # ready
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send("go")
        for pipe in self.pipes:
            pipe.recv()  # done
        return self.pictures / (time.perf_counter() - started)


def fresh_worker(backend: str, paths: list[Path]) -> dict[str, float]:
    """A new process that prepares pictures and nothing else: its start and its memory."""
    ended = subprocess.run(
        [sys.executable, "-c", FRESH_WORKER, backend],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(ended.stdout)
    return figures


FRESH_WORKER = """
import sys, time
started = time.perf_counter()
import json
from pathlib import Path
from prep import images

settings = images.Settings(backend=sys.argv[1])
paths = sys.stdin.read().splitlines()
images.prepare(Path(paths[0]).read_bytes(), settings)
first = time.perf_counter() - started
for path in paths:
    images.encode_jpeg(images.prepare(Path(path).read_bytes(), settings).pixels, 95)
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
kib = {name: int(status[name].split()[0]) for name in ("VmHWM", "RssFile", "RssShmem")}
print(json.dumps({
    "seconds to the first picture": round(first, 2),
    "private memory at its peak, MiB": (kib["VmHWM"] - kib["RssFile"] - kib["RssShmem"]) >> 10,
}))
"""


# --------------------------------------------------------------------------- the report


def largest_difference(paths: list[Path]) -> int:
    """Grey levels between turbo and Pillow's resize of the same decoded pixels."""
    largest = 0
    for path in paths:
        pixels = simplejpeg.decode_jpeg(path.read_bytes(), "RGBX")
        expected = scale.pillow(Image.fromarray(pixels[..., :3]), SIDE, "crop")
        got = scale.turbo(pixels, SIDE, "crop")
        largest = max(largest, int(np.abs(got.astype(int) - expected).max()))
    return largest


def measure(paths: list[Path], rounds: int, out: Path, img2dataset: Path | None) -> dict[str, Any]:
    crews = {count: Workers(count, paths, out, img2dataset) for count in (1, 2)}
    ways = crews[1].ways
    rates: dict[str, dict[int, list[float]]] = {way: {1: [], 2: []} for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            for count, workers in crews.items():
                rate = workers.rate(way)
                if number > 0:
                    rates[way][count].append(rate)

    def ratio(way: str, count: int, other: str, other_count: int) -> dict[str, float]:
        pairs = zip(rates[way][count], rates[other][other_count], strict=True)
        return spread([a / b for a, b in pairs])

    return {
        "images/s": {
            way: {f"{count} workers": spread(values) for count, values in counts.items()}
            for way, counts in rates.items()
        },
        "ratios": {
            f"{UNIT} / {TORCHVISION}": ratio(UNIT, 1, TORCHVISION, 1),
            f"{TURBO} / {TORCHVISION}": ratio(TURBO, 1, TORCHVISION, 1),
            **{
                f"{way} / {floor}": ratio(way, 1, floor, 1)
                for way in ("prep turbo, in memory", TURBO, UNIT, TAR_UNIT)
                for floor in FLOORS
            },
            f"{RESIZES[0]} / {RESIZES[1]}": ratio(RESIZES[0], 1, RESIZES[1], 1),
            **{f"{way}, 2 workers / 1": ratio(way, 2, way, 1) for way in (TURBO, UNIT, TAR_UNIT)},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--img2dataset", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.source or folder / "prep sample"
        if arguments.source is None:
            draw_sample(source, 10, 100, 10, 0, None, lambda *_: None)
        found = sorted(path for path in source.rglob("*") if path.is_file() and is_plain(path))
        paths = found[:: -(-len(found) // arguments.pictures)]
        report = {
            "machine": machine(),
            "source": source.name,
            "pictures": len(paths),
            "mean_bytes": round(statistics.mean(path.stat().st_size for path in paths)),
            "rounds": arguments.rounds,
            "written": WRITTEN,
            **measure(paths, arguments.rounds, folder, arguments.img2dataset),
            "a worker of its own": {backend: fresh_worker(backend, paths) for backend in BACKENDS},
            "turbo from Pillow's resize, grey levels, at most": largest_difference(paths),
        }
        if arguments.img2dataset is None:
            report["images/s"][IMG2DATASET] = None  # not installed: --img2dataset
    tell(report, arguments.out)


def is_plain(path: Path) -> bool:
    """Whether every way can take it: a whole grey or colour JPEG."""
    try:
        data = path.read_bytes()
        simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return False
    return bool(simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray"))


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
