"""run.json: how a run was started, each time: command, recipe, data, machine and versions.

A run's folder says nothing else of these. Each `train run` adds a record as it begins or goes on,
and writes the file whole; `train report` reads it. Paths are absolute, of the machine that trained.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from prep import code_version
from prep.files import whole_file
from prep.program import UserError
from train import __version__
from train.dataset import Dataset
from train.processes import Processes
from train.state import Data, RunSettings, State

FORMAT_VERSION = 1
FILE_NAME = "run.json"
CODE = (Path(__file__).parent, Path(code_version.__file__).parent)  # what decides a run
PACKAGES = ("torch", "torchvision", "ffcv", "numba", "numpy", "simplejpeg")


@dataclasses.dataclass(frozen=True)
class Beton:
    """What was read."""

    path: str
    card: dict[str, Any]  # as prep.handover.Card, but with the number of classes for their list


@dataclasses.dataclass(frozen=True)
class Start:
    """One `train run`, as it began or went on after `epoch` epochs and `step` steps."""

    when: str  # ISO 8601, UTC
    command: str
    folder: str  # that it was given in
    epoch: int
    step: int
    steps_per_epoch: int
    recipe_text: str  # the file's, with the sources of its values; "" where it is not known
    train: Beton
    val: Beton | None
    device: str  # "cpu", "mps", or a GPU's name
    processes: int
    threads: int  # of each
    cpu: str
    cores: int
    system: str
    versions: dict[str, str]


def record(
    settings: RunSettings, data: Data, processes: Processes, state: State, steps_per_epoch: int
) -> None:
    """Add a start to the run.json of settings.out, or begin one where the run starts over."""
    device, path = settings.device, settings.out / FILE_NAME
    start = Start(
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=shlex.join(["train", *sys.argv[1:]]),
        folder=str(Path.cwd()),
        epoch=state.epoch,
        step=state.step,
        steps_per_epoch=steps_per_epoch,
        recipe_text=settings.recipe_text,
        train=_beton(data.train),
        val=_beton(data.val) if data.val else None,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        processes=processes.world,
        threads=torch.get_num_threads(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        system=platform.platform(),
        versions={
            "train": f"{__version__} of code {code_version.code_of(*CODE)}",
            "python": platform.python_version(),
        }
        | {name: metadata.version(name) for name in PACKAGES},
    )
    before = read(path) if state.step else []
    with whole_file(path) as partial:
        starts = [dataclasses.asdict(each) for each in [*before, start]]
        text = json.dumps({"format_version": FORMAT_VERSION, "starts": starts}, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> list[Start]:
    """The starts of a run, first one first; none where there is no file, as of older programs.

    Raises UserError when it is damaged or of another version.
    """
    if not path.exists():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (version := values["format_version"]) != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this program reads {FORMAT_VERSION}; use "
                "the program that wrote it, or remove the file"
            )
        return [_start(each) for each in values["starts"]]
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it, which loses only what it says of the run's "
            "beginnings"
        ) from error


def _start(values: dict[str, Any]) -> Start:
    train, val = Beton(**values.pop("train")), values.pop("val")
    return Start(train=train, val=Beton(**val) if val else None, **values)


def _beton(dataset: Dataset) -> Beton:
    card = dataclasses.asdict(dataset.card) | {"classes": len(dataset.card.classes)}
    return Beton(str(dataset.path.resolve()), card)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
