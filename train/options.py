"""What `train`'s commands share: options, and checks that are made before torch is imported."""

from __future__ import annotations

import enum
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from prep.program import UserError, no_beton


class Device(enum.StrEnum):
    """Where the network runs."""

    cuda = "cuda"
    cpu = "cpu"
    mps = "mps"


class Feed(enum.StrEnum):
    """Where training images are augmented."""

    cpu = "cpu"
    gpu = "gpu"


def recipes_for_shell() -> list[str]:
    """What a shell completes a recipe's name to."""
    from train.recipe import recipe_names

    return recipe_names()


def settings_for_shell() -> list[str]:
    """What a shell completes --set to; the value is the user's."""
    import dataclasses

    from train.recipe import Recipe

    return [
        f"{key.name}=" for key in dataclasses.fields(Recipe) if key.name not in ("name", "about")
    ]


BetonOption = Annotated[
    Path, typer.Option("--beton", help="Training data, written by `prep write-beton`.")
]
RecipeOption = Annotated[
    str,
    typer.Option(
        help="A name (see `train recipes`) or a .toml file.", autocompletion=recipes_for_shell
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the recipe; repeatable.",
        autocompletion=settings_for_shell,
    ),
]
FeedOption = Annotated[
    Feed | None,
    typer.Option(
        help="Augment in the loader's threads (cpu) or on the device (gpu): same values.",
        show_default="gpu on a CUDA device, else cpu",
    ),
]
DeviceOption = Annotated[
    Device | None,
    typer.Option("--device", "-d", help="Where to run.", show_default="the best there is"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads that decode, augment and, on a CPU, compute.",
        show_default="every core",
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="The --out folder of a run, a checkpoint file, or torchvision's AlexNet weights.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]


def check_beton(path: Path) -> None:
    """A wrong name is told before torch and FFCV are imported, which takes seconds."""
    if not path.is_file():
        raise UserError(no_beton(path))


def check_run(path: Path) -> None:
    """As check_beton."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the --out folder of a `train run`")


def load_torch() -> None:
    """Import torch and FFCV, which takes seconds; on a terminal a line says so meanwhile."""
    terminal = sys.stderr.isatty()
    if terminal:
        print("loading torch and FFCV ...", end="", file=sys.stderr, flush=True)
    try:
        importlib.import_module("train.loader")
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # to the line's start, erased


def cores() -> int:
    """The cores that this process may use; of those that torchrun started here, its share.

    A container's limit counts (`docker run --cpus 4`, Kubernetes' limits), as it does for prep.
    """
    import joblib

    own = int(joblib.cpu_count())
    share = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(own // int(share), 1) if share.isdecimal() and int(share) else own
