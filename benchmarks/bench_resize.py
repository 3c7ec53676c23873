"""Rates of preparing pictures, one and two workers, beside other ways of doing it.

    python -m benchmarks.bench_resize [SRC] [--rounds 5] [--pictures 1000]
        [--img2dataset SITE_PACKAGES] [--out benchmarks/results/resize.json]

SRC holds originals in any folders; without it, pictures of `prep sample` are drawn. All ways run on
the same whole JPEGs, in worker processes that live as long as the benchmark. A round goes through
every way, with one worker and then with two; the first round is thrown away, and ratios are taken
within a round. Originals are in the page cache.

The floors, in memory: decoding alone and decoding + encoding 256x256 (simplejpeg), each into new
arrays and into a buffer that is used again. "file to file" reads the original and writes the JPEG,
ours with the sha256 and crc32 that go into the manifest; nothing waits for the disk. "a unit" is
what a worker of `prep resize` does: the same, then one syncfs for all its pictures and their rows
written, synced and renamed.

"the resize alone" is of pixels in memory: ours, and torch's for uint8 tensors, which torchvision's
Resize calls and which a worker pays two seconds and half a gigabyte for.

img2dataset is no dependency: name the site-packages folder of an environment that has it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import io
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.machine import machine
from benchmarks.report import spread, tell
from prep import images, scale
from prep.claim import claimed
from prep.images import BACKENDS, Pixels, Settings
from prep.pictures import Run
from prep.resize_unit import Unit as ResizeUnit
from prep.resize_unit import resize_unit
from prep.sample import draw_sample
from prep.sources.folders import read_files
from prep.sources.listing import ListingBuilder

SIDE, QUALITY = 256, 95
WRITTEN = {  # for the report
    "in memory": "nothing",
    "file to file": "a JPEG a picture; the disk is not waited for",
    "a unit of `prep resize`": "a JPEG a picture, one syncfs for all, then their rows, an fsync",
}
TORCHVISION = "torchvision on PIL, file to file"
TURBO = "prep turbo, file to file"
UNIT = "prep turbo, a unit of `prep resize`"
FLOORS = ("decode + encode", "decode + encode, buffer reused")
RESIZES = "the resize alone, prep turbo", "the resize alone, torch's uint8 antialiased bilinear"
IMG2DATASET = "img2dataset's resizer, in memory"


# --------------------------------------------------------------------------- the ways


class Ways:
    """What a worker can do with its share of the pictures."""

    def __init__(self, paths: list[Path], out: Path, img2dataset: Path | None) -> None:
        self.paths, self.out = paths, out
        self.data = [path.read_bytes() for path in paths]
        builder = ListingBuilder()
        for path in paths:
            builder.add(str(path.absolute()).removeprefix("/"), 0, path.stat().st_size)
        self.entries = builder.build()
        self.pixels: list[Pixels] = []  # prepared, for the floors to encode
        self.kept: dict[str, list[Pixels]] = {}
        self.buffer = np.empty(64 << 20, np.uint8)
        self.by_name: dict[str, Callable[[], None]] = {
            "decode": functools.partial(self.decode, False),
            "decode, buffer reused": functools.partial(self.decode, True),
            FLOORS[0]: functools.partial(self.decode_encode, False),
            FLOORS[1]: functools.partial(self.decode_encode, True),
            TORCHVISION: self.torchvision,
            RESIZES[0]: self.resize,
            RESIZES[1]: self.torch_resize,
        }
        for backend in BACKENDS:
            settings = Settings(backend=backend)
            self.by_name[f"prep {backend}, in memory"] = functools.partial(self.picture, settings)
            self.by_name[f"prep {backend}, file to file"] = functools.partial(self.files, settings)
        self.by_name[UNIT] = self.unit
        if img2dataset is not None:
            os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network
            sys.path.append(str(img2dataset))  # this project's packages come first
            self.by_name[IMG2DATASET] = self.img2dataset

    def decode(self, reuse: bool) -> None:
        for data in self.data:
            simplejpeg.decode_jpeg(data, "RGB", buffer=self.buffer if reuse else None)

    def decode_encode(self, reuse: bool) -> None:
        if not self.pixels:
            self.pixels = [images.prepare(data, Settings()).pixels for data in self.data]
        for data, pixels in zip(self.data, self.pixels, strict=True):
            simplejpeg.decode_jpeg(data, "RGB", buffer=self.buffer if reuse else None)
            simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="420")

    def decoded(self, colours: str) -> list[Pixels]:
        """32 originals [H,W,3] or [H,W,4], decoded once, again and again: all would be 700 MB."""
        if colours not in self.kept:
            self.kept[colours] = [simplejpeg.decode_jpeg(data, colours) for data in self.data[:32]]
        some = self.kept[colours]
        return [some[number % len(some)] for number in range(len(self.data))]

    def resize(self) -> None:
        for pixels in self.decoded("RGBX"):
            scale.turbo(pixels, SIDE, "crop")

    def torch_resize(self) -> None:
        """The whole picture, as torchvision's Resize on a tensor does it; the crop is a view."""
        import torch
        from torch.nn.functional import interpolate

        torch.set_num_threads(1)
        for pixels in self.decoded("RGB"):
            height, width = pixels.shape[:2]
            scale_by = SIDE / min(height, width)
            interpolate(
                torch.from_numpy(pixels).permute(2, 0, 1)[None],
                size=(int(height * scale_by), int(width * scale_by)),
                mode="bilinear",
                antialias=True,
            )

    def torchvision(self) -> None:
        from torchvision import transforms

        steps = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE)])
        for path in self.paths:
            with Image.open(path) as picture:
                resized = steps(picture.convert("RGB"))
            resized.save(self.out / path.name, "JPEG", quality=QUALITY)

    def picture(self, settings: Settings) -> None:
        for data in self.data:
            images.encode_jpeg(images.prepare(data, settings).pixels, QUALITY)

    def files(self, settings: Settings) -> None:
        rows = []
        for path in self.paths:
            jpeg = images.encode_jpeg(images.prepare(path.read_bytes(), settings).pixels, QUALITY)
            (self.out / path.name).write_bytes(jpeg)
            rows.append((hashlib.sha256(jpeg).hexdigest(), zlib.crc32(jpeg)))

    def unit(self) -> None:
        with claimed(self.out, self.out) as claim:
            resize_unit(
                ResizeUnit(
                    Run(
                        number=0,
                        root=Path("/"),
                        entries=self.entries,
                        read=read_files,
                        names=tuple(path.name for path in self.paths),
                        folders=(),
                        whole_stem=False,
                        settings=Settings(),
                    ),
                    layout="tree",
                    images_folder=self.out,
                    work=self.out,
                    claim=claim,
                )
            )

    def img2dataset(self) -> None:
        resizer = importlib.import_module("img2dataset.resizer").Resizer(
            SIDE, "center_crop", False, encode_quality=QUALITY
        )
        for data in self.data:
            assert resizer(io.BytesIO(data))[-1] is None


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
                for way in ("prep turbo, in memory", TURBO, UNIT)
                for floor in FLOORS
            },
            f"{RESIZES[0]} / {RESIZES[1]}": ratio(RESIZES[0], 1, RESIZES[1], 1),
            f"{UNIT}, 2 workers / 1": ratio(UNIT, 2, UNIT, 1),
            f"{TURBO}, 2 workers / 1": ratio(TURBO, 2, TURBO, 1),
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
