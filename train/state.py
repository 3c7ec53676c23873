"""What a run is asked for, what it reads, and what a checkpoint holds of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from torch.optim.swa_utils import AveragedModel

from prep.handover import Statistics
from train.checkpoint import TrainedOn
from train.clock import EpochClock
from train.dataset import Dataset
from train.feed import Feed
from train.networks.layers import AlexNet
from train.recipe import Recipe
from train.sums import EpochSums

# The network as it is, by torch.compile, or so and the whole update as a CUDA graph.
Computed = Literal["eager", "compiled", "graphs"]


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
    init: Path | None = None  # a run or checkpoint whose weights a new run starts from
    accumulate: int = 1  # pieces that a batch is divided into, one after the other
    computed: Computed = "eager"
    checkpoint_steps: int = 0  # between checkpoints in an epoch; 0: none
    checkpoint_minutes: float = 0.0  # the same in time
    keep: int = 0  # older checkpoints
    summary: bool = False  # print the network's layers, draw its graph
    recipe_text: str = ""  # of its file, for train.provenance


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
    average: AveragedModel | None  # of the weights
    sgd: torch.optim.SGD
    scaler: torch.amp.GradScaler  # does nothing but for fp16
    sums: EpochSums  # of the epoch under way
    clock: EpochClock = dataclasses.field(default_factory=EpochClock)  # the same
    epoch: int = 0  # whole epochs done
    epoch_step: int = 0  # steps done of the next one
    step: int = 0  # steps done
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    origin: str = ""  # the checkpoint that --resume or --init named when the run began, or ""
    pipeline_compiled: bool = False  # when the first batch is asked for, or loaded
    time_told: bool = False  # how long the run will take

    def end_epoch(self, measured: dict[str, float]) -> None:
        self.epoch += 1
        self.epoch_step = 0
        self.history.append(measured)
        self.sums, self.clock = self.sums.anew(), EpochClock()
