"""What benchmarks.bench_resize compares: the ways of preparing a share of the pictures.

The floors, in memory: decoding alone and decoding + encoding 256x256 (simplejpeg), each into new
arrays and into a buffer that is used again. "file to file" reads the original and writes the JPEG,
ours with the sha256 and crc32 that go into the manifest; nothing waits for the disk. "a unit" is
what a worker of `prep resize` does: the same, then a wait until its pictures are on the disk, and
their rows written, synced and renamed; with layout "tar" its pictures are one file.

"the resize alone" is of pixels in memory: ours, and torch's for uint8 tensors, which torchvision's
Resize calls and which a worker pays two seconds and half a gigabyte for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from prep import images, scale
from prep.claim import claimed
from prep.images import BACKENDS, Pixels, Settings
from prep.pictures import Run
from prep.resize_unit import Unit as ResizeUnit
from prep.resize_unit import resize_unit
from prep.sources.folders import read_files
from prep.sources.listing import UNIT_SIZE, ListingBuilder

SIDE, QUALITY = 256, 95
WRITTEN = {  # for the report
    "in memory": "nothing",
    "file to file": "a JPEG a picture; the disk is not waited for",
    "a unit of `prep resize`": "a JPEG a picture, one syncfs after another meanwhile, the last "
    "one for all 512, then their rows, an fsync",
    "a unit of `prep resize --layout tar`": "one file of 512 JPEGs, then their rows, an fsync each",
}
TORCHVISION = "torchvision on PIL, file to file"
TURBO = "prep turbo, file to file"
UNIT = "prep turbo, a unit of `prep resize`"
TAR_UNIT = "prep turbo, a unit of `prep resize --layout tar`"
FLOORS = ("decode + encode", "decode + encode, buffer reused")
RESIZES = "the resize alone, prep turbo", "the resize alone, torch's uint8 antialiased bilinear"
IMG2DATASET = "img2dataset's resizer, in memory"


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
        self.by_name[UNIT] = functools.partial(self.units, "tree")
        self.by_name[TAR_UNIT] = functools.partial(self.units, "tar")
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

    def units(self, layout: str) -> None:
        """As many as a worker of `prep resize` makes of so many pictures."""
        with claimed(self.out, self.out) as claim:
            for number, start in enumerate(range(0, len(self.paths), UNIT_SIZE)):
                stop = min(start + UNIT_SIZE, len(self.paths))
                run = Run(
                    number,
                    root=Path("/"),
                    entries=self.entries.part(start, stop),
                    read=read_files,
                    names=tuple(path.name for path in self.paths[start:stop]),
                    folders=(),
                    whole_stem=False,
                    settings=Settings(),
                )
                resize_unit(ResizeUnit(run, layout, self.out, self.out, claim))

    def img2dataset(self) -> None:
        resizer = importlib.import_module("img2dataset.resizer").Resizer(
            SIDE, "center_crop", False, encode_quality=QUALITY
        )
        for data in self.data:
            assert resizer(io.BytesIO(data))[-1] is None
