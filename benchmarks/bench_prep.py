"""Rates of prep's stages on one folder of originals, beside the usual way, in one run.

    python benchmarks/bench_prep.py [SRC] [--rounds 5] [--out benchmarks/results/prep.json]

One core, one process, files in the page cache. A round measures, one after the other on the same
files: decode alone and decode + encode (simplejpeg); torchvision's Resize(256) + CenterCrop(256)
on a PIL picture, saved at quality 95 (what most write-ups do); this project's picture stage. The
first round is thrown away. Then the four commands run once with every core, files written and
made durable as they always are. SRC is a folder as `prep resize` takes it; without one, pictures
of `prep sample` are drawn.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import simplejpeg
from PIL import Image
from torchvision import transforms

from prep import images, resize, stats, verify, write
from prep.images import Settings
from prep.sample import draw_sample
from prep.sources import find_source
from prep.sources.listing import Source

SIDE, QUALITY = 256, 95
PICTURES = 1000  # at most so many go through each way in a round; the commands take all


def decode(data: bytes) -> None:
    simplejpeg.decode_jpeg(data, "RGB")


def decode_encode(data: bytes) -> None:
    simplejpeg.encode_jpeg(
        simplejpeg.decode_jpeg(data, "RGB"), quality=QUALITY, colorsubsampling="420"
    )


def torchvision_pil(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        resized = PIPELINE(picture.convert("RGB"))
    resized.save(io.BytesIO(), "JPEG", quality=QUALITY)


def ours(data: bytes) -> None:
    images.encode_jpeg(images.prepare(data, Settings()).pixels, QUALITY)


PIPELINE = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE)])
WAYS: dict[str, Callable[[bytes], None]] = {
    "decode alone": decode,
    "decode + encode": decode_encode,
    "torchvision on PIL": torchvision_pil,
    "prep": ours,
}


def picture_rates(files: list[bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Images/s of each way on one core: median, lowest and highest of `rounds`, interleaved."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds + 1):
        for name, way in WAYS.items():
            started = time.perf_counter()
            for data in files:
                way(data)
            rates[name].append(len(files) / (time.perf_counter() - started))
    measured = {name: values[1:] for name, values in rates.items()}
    return {
        name: {"median": statistics.median(v), "lowest": min(v), "highest": max(v)}
        for name, v in measured.items()
    }


def command_rates(found: Source, folder: Path) -> dict[str, float]:
    """Images/s of each command with every core."""
    split, beton = next(iter(found.splits)), folder / "train.beton"
    count = sum(len(entries.listing) for entries in found.splits.values())
    prepared = folder / "prepared" / split
    in_split = len(found.splits[split].listing)
    stages: list[tuple[str, int, Callable[[], Any]]] = [
        ("resize", count, lambda: resize.resize(
            found, folder / "prepared", resize.Options(max_rejects=1.0))),
        ("stats", in_split, lambda: stats.write(stats.measure(prepared, None), prepared)),
        ("write-beton", in_split, lambda: write.write_beton(prepared, beton, "jpg", None)),
        ("verify", in_split, lambda: verify.verify(beton, None)),
    ]  # fmt: skip
    rates = {}
    for name, number, stage in stages:
        started = time.perf_counter()
        stage()
        rates[name] = number / (time.perf_counter() - started)
    return rates


def machine() -> dict[str, Any]:
    packages = ("numpy", "pillow", "simplejpeg", "numba", "torch", "torchvision", "ffcv")
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def no_report(done: int, rejected: int = 0) -> None:
    """Progress of the drawing, which nobody watches here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or Path(folder) / "prep sample"
        if arguments.source is None:
            draw_sample(source, 10, 100, 10, 0, None, no_report)
        found = find_source(source)
        originals = [
            found.root / name for split in found.splits.values() for name in split.listing.names
        ]
        read = (path.read_bytes() for path in originals[:: -(-len(originals) // PICTURES)])
        files = [data for data in read if _plain(data)]
        report = {
            "machine": machine(),
            "source": source.name,
            "pictures": len(originals),
            "pictures a round": len(files),
            "mean_bytes": sum(map(len, files)) / len(files),
            "rounds": arguments.rounds,
            "one core, images/s": picture_rates(files, arguments.rounds),
            "commands with every core, images/s": command_rates(found, Path(folder)),
        }
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text)


def _plain(data: bytes) -> bool:
    """Whether every way can take it: a whole grey or colour JPEG."""
    try:
        simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return False
    return bool(simplejpeg.decode_jpeg_header(data)[2] != "CMYK")


if __name__ == "__main__":
    main()
