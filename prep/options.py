"""The options of `prep`'s commands that are shared, or have a few words to choose from."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from prep.program import png_path


def seed_of(seed: int | None, what: str, wanted: bool) -> int:
    """The value of --seed, which is of the option `what`. Raises BadParameter when not `wanted`."""
    if seed is not None and not wanted:
        raise typer.BadParameter(f"--seed {seed} is of {what}; give both, or neither")
    return seed or 0


def manifests_for_shell() -> list[str]:
    """What a shell completes --manifest to."""
    from prep.manifest import names

    return names()


def part_of(value: str | None) -> tuple[int, int] | None:
    """The value of --part. Raises BadParameter when it is none."""
    if value is None:
        return None
    number, _, parts = value.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise typer.BadParameter(f"--part {value}: give I/N, from 1/N to N/N")
    return int(number), int(parts)


Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Worker processes.", show_default="every core"),
]
Png = Annotated[
    Path | None,
    typer.Option(
        "--png", metavar="FILE.png", callback=png_path, help="Also draw it, as a picture, here."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for a program to read.")]
PreparedFolder = Annotated[
    Path, typer.Argument(metavar="OUT/SPLIT", help="A split that `prep resize` made.")
]
Measurable = Annotated[
    Path,
    typer.Argument(metavar="OUT/train", help="What `prep resize` made, or a FILE.beton of it."),
]
BetonFile = Annotated[Path, typer.Argument(metavar="FILE.beton")]


SourceFolder = Annotated[
    Path,
    typer.Argument(
        metavar="SRC",
        help="ImageNet's archives, Kaggle's tree, parquet shards, WebDataset tars, Tiny ImageNet, "
        "Caltech-256, CIFAR-10, SRC/train/<class>/ and SRC/val/<class>/, or SRC/<class>/.",
    ),
]
ManifestName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The data set this is, when its class names do not tell.",
        autocompletion=manifests_for_shell,
    ),
]
Clutter = Annotated[bool, typer.Option("--clutter", help="Caltech-256 with its class of clutter.")]


class Which(enum.StrEnum):
    """The splits to look at."""

    all = "all"
    train = "train"
    val = "val"
    test = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "val", "test") if self is Which.all else (self.value,)


SplitName = Annotated[Which, typer.Option("--split", help="Which part of the source.")]


class Layout(enum.StrEnum):
    """How prepared pictures lie on disk."""

    tree = "tree"
    tar = "tar"


class Mode(enum.StrEnum):
    """How a beton stores its samples."""

    jpg = "jpg"
    raw = "raw"


class SampleOrder(enum.StrEnum):
    """How the samples of a beton follow one another."""

    by_class = "class"
    shuffled = "shuffled"


class ReadBack(enum.StrEnum):
    """How far a new beton is checked."""

    structure = "structure"
    decode = "decode"


class Backend(enum.StrEnum):
    """What decodes and resizes."""

    turbo = "turbo"
    pillow = "pillow"
    opencv_2012 = "opencv-2012"


class Fit(enum.StrEnum):
    """How a picture becomes a square."""

    crop = "crop"
    squash = "squash"


class Exif(enum.StrEnum):
    """What becomes of EXIF orientation."""

    ignore = "ignore"
    apply = "apply"


class OnTruncated(enum.StrEnum):
    """What becomes of a file whose tail is missing."""

    reject = "reject"
    accept = "accept"


# --------------------------------------------------------------------------- what pictures become

Side = Annotated[int, typer.Option("--size", min=8, max=4096, help="Side in pixels.")]
Quality = Annotated[int, typer.Option(min=1, max=100, help="Of the JPEGs.")]
BackendName = Annotated[
    Backend,
    typer.Option(
        help="turbo: the fastest; pillow: torchvision's very pixels; opencv-2012: the AlexNet "
        "authors' converter."
    ),
]
FitName = Annotated[
    Fit, typer.Option(help="crop: shorter side to --size, centre crop; squash: both sides.")
]
ExifRule = Annotated[
    Exif, typer.Option(help="Orientation. ignore: as ImageNet tools do; apply: turn upright.")
]
TruncatedRule = Annotated[
    OnTruncated, typer.Option(help="A file whose tail is missing. accept: what is left of it.")
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Larger pictures are rejected.")]
MaxRejects = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Fraction of a split that may be rejected.")
]
ValFraction = Annotated[
    float | None,
    typer.Option(min=0.0, max=0.9, help="Make val from this share of train, class by class."),
]
DivisionSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Of --val-fraction.", show_default="0")
]
Partial = Annotated[bool, typer.Option("--partial", help="Take a data set that is not whole.")]
