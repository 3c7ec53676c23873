"""What a run begins with: settings, checked data, and the network, new or from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from prep.handover import Statistics
from prep.program import UserError
from train import checkpoint as checkpoints
from train import dataset as datasets
from train import networks, optimiser, schedule
from train.checkpoint import TrainedOn
from train.dataset import Dataset
from train.feed import Feed
from train.networks.layers import AlexNet
from train.recipe import Recipe
from train.screen import Screen

Device = Literal["cuda", "cpu", "mps"]


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What one `train run` was asked for."""

    beton: Path
    val_beton: Path | None
    recipe: Recipe
    out: Path
    resume: str  # "auto", "never", or the path of a run or checkpoint
    device: torch.device
    workers: int  # threads that decode, augment and, on a CPU, compute
    feed: Feed | None = None  # None: the faster one


def choose_device(wanted: Device | None) -> torch.device:
    """The device asked for, or the best there is. Raises UserError when it is not there.

    On CUDA, float32 is then float32: convolutions would otherwise run in TF32.
    """
    torch.backends.cudnn.allow_tf32 = False
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted is None:
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wanted]:
        raise UserError(
            f"--device {wanted}: torch {torch.__version__} finds no such device here; give "
            "--device cpu, or check the driver"
        )
    return torch.device(wanted)


@dataclasses.dataclass(frozen=True)
class Data:
    """Opened and checked, before any work is done."""

    train: Dataset
    val: Dataset | None
    statistics: Statistics
    trained_on: TrainedOn


@dataclasses.dataclass
class State:
    """What a checkpoint holds, and what training changes."""

    network: AlexNet
    sgd: torch.optim.SGD
    epoch: int  # whole epochs done
    step: int  # steps done
    history: list[dict[str, float]]  # schedule.WATCHED, after each epoch
    origin: str  # the checkpoint that --resume PATH named when the run began, or ""
    pipeline_compiled: bool = False  # when the first batch is asked for, or loaded


def open_data(settings: RunSettings) -> Data:
    if (origin := _origin(settings)) and not Path(origin).exists():
        raise UserError(f"{settings.resume} does not exist; give the --out folder of a `train run`")
    train = datasets.open_dataset(settings.beton)
    schedule.check_validation(settings.recipe, settings.val_beton)
    statistics = datasets.training_statistics(train)
    trained_on = checkpoints.trained_on(train.card, statistics)
    val = None
    if settings.val_beton is not None:
        val = datasets.open_dataset(settings.val_beton)
        datasets.check_same_classes(
            val.card, trained_on.wnids, trained_on.side, str(settings.val_beton)
        )
    return Data(train, val, statistics, trained_on)


def start(settings: RunSettings, data: Data, screen: Screen) -> State:
    """The network and optimiser at step 0, or as the run to resume left them."""
    network = networks.build(settings.recipe, len(data.trained_on.wnids))
    network.to(settings.device).to(memory_format=torch.channels_last)
    state = State(network, optimiser.build(network, settings.recipe), 0, 0, [], "")
    screen.line(_summary(settings, network, data))
    origin = _resume_from(settings)
    if origin is not None:
        loaded = checkpoints.load(origin)
        val_pixels_id = data.val.card.pixels_id if data.val else ""
        checkpoints.check_resumable(loaded, settings.recipe, data.trained_on, val_pixels_id, origin)
        checkpoints.load_weights(network, loaded, origin)
        state.sgd.load_state_dict(loaded.optimiser)
        state.epoch, state.step = loaded.epoch, loaded.step
        state.history = list(loaded.history)
        same_out = origin == settings.out / checkpoints.FILE_NAME
        state.origin = loaded.origin if same_out else _origin(settings)
        screen.line(f"resumed from {origin} after epoch {state.epoch}, step {state.step}")
        if loaded.threads != torch.get_num_threads():
            screen.line(
                f"warning: {origin} was trained with {loaded.threads} threads, this run has "
                f"{torch.get_num_threads()}: sums round differently, so losses may too"
            )
    return state


def _resume_from(settings: RunSettings) -> Path | None:
    """The run or checkpoint to carry on.

    With --resume PATH that is PATH at first, and what lies in --out when the same command is given
    again. Raises UserError when --out holds a run that did not begin with PATH.
    """
    path = settings.out / checkpoints.FILE_NAME
    if settings.resume == "never":
        return None
    if settings.resume == "auto" or not path.exists():
        origin = path if settings.resume == "auto" else Path(settings.resume)
        return origin if origin.exists() or settings.resume != "auto" else None
    begun = _origin(settings)
    if begun != str(path.resolve()) and checkpoints.load(path).origin != begun:
        raise UserError(
            f"{settings.out} holds another run than {settings.resume}; give another --out"
        )
    return path


def _origin(settings: RunSettings) -> str:
    """The checkpoint file that --resume PATH names; empty without one."""
    if settings.resume in ("auto", "never"):
        return ""
    path = Path(settings.resume)
    return str((path / checkpoints.FILE_NAME if path.is_dir() else path).resolve())


def _summary(settings: RunSettings, network: AlexNet, data: Data) -> str:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return (
        f"recipe {settings.recipe.name}: {parameters:,} parameters, "
        f"{len(data.trained_on.wnids)} classes, {len(data.train):,} training images, on "
        f"{settings.device} with {torch.get_num_threads()} threads"
    )
