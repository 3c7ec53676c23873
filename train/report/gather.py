"""What a run's folder says of itself: checkpoint, rows of metrics.jsonl, run.json."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prep.program import UserError, counted
from train import checkpoint as checkpoints
from train import metrics, provenance, schedule
from train.checkpoint import Checkpoint
from train.provenance import Start
from train.recipe import BY_EPOCHS
from train.saving import BEST

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run to report; `file` is the checkpoint that its network is taken from."""

    label: str  # as it was named; of several, without the folder that all lie in
    file: Path
    checkpoint: Checkpoint
    rows: list[Row]
    starts: list[Start]

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def epochs(self) -> list[Row]:
        return [row for row in self.rows if row["kind"] == "epoch"]

    @property
    def steps(self) -> list[Row]:
        return [row for row in self.rows if row["kind"] == "step"]

    @property
    def steps_per_epoch(self) -> float:
        """0 where nothing tells: no epoch has ended, and there is no run.json."""
        if self.epochs:
            return float(self.epochs[-1]["step"] / self.epochs[-1]["epoch"])
        return float(self.starts[-1].steps_per_epoch) if self.starts else 0.0

    @property
    def best(self) -> Row | None:
        """The epoch that best.pt is of: the first with the lowest of what the recipe watches.

        None where that was one of the run that this one was resumed from in another folder.
        """
        watch = self.checkpoint.recipe.watch
        measured = [row for row in self.epochs if row.get(watch) is not None]
        best = min(measured, key=lambda row: float(row[watch]), default=None)
        known = [epoch[watch] for epoch in self.checkpoint.history if watch in epoch]
        return best if best is None or float(best[watch]) <= min(known, default=math.inf) else None

    @property
    def drops(self) -> list[tuple[float, float]]:
        """(epochs done when the rate was lowered, rate from there on), where it falls by steps."""
        if self.checkpoint.recipe.schedule in BY_EPOCHS:
            return []
        rates = [(row["epoch"], row["learning_rate"]) for row in self.epochs]
        return [
            (float(before[0]), float(after[1]))
            for before, after in itertools.pairwise(rates)
            if after[1] < before[1]
        ]

    @property
    def seconds(self) -> float:
        """Of training, without validation."""
        return sum(float(row["seconds"]) for row in self.epochs)


def gather(paths: Sequence[Path]) -> list[Run]:
    """Runs by their folders, or by a checkpoint in one.

    Raises UserError when there is no checkpoint, or none that a run has written.
    """
    if len(paths) == 1:
        return [_gather(paths[0], str(paths[0]))]
    whole = [path.absolute() for path in paths]
    folders = [path if path.is_dir() else path.parent for path in whole]
    common = os.path.commonpath([folder.parent for folder in folders])
    labels = [str(path.relative_to(common)) for path in whole]
    return [_gather(path, label) for path, label in zip(paths, labels, strict=True)]


def _gather(path: Path, label: str) -> Run:
    file = checkpoints.file_of(path)
    rows = file.parent / metrics.FILE_NAME
    if file.exists() and not rows.exists():
        raise UserError(
            f"{file.parent} has no {metrics.FILE_NAME}; give the --out folder of a `train run`, or "
            "a checkpoint in it"
        )
    checkpoint = dataclasses.replace(checkpoints.load(path), optimiser={})  # as large as weights
    starts = provenance.read(file.parent / provenance.FILE_NAME)
    return Run(label, file, checkpoint, metrics.read(rows), starts)


def looks_at_validation(run: Run) -> list[str]:
    """Sentences on what validation data has decided in this run; none where it decided nothing."""
    recipe = run.checkpoint.recipe
    if recipe.watch == "loss" or not any("val_loss" in row for row in run.epochs):
        return []
    watched = WATCHED[recipe.watch]
    said = []
    if schedule.watches_validation(recipe):
        if recipe.schedule in ("plateau", "reduce-on-plateau"):
            ending = ", and ends the run," if recipe.schedule == "plateau" else ""
            said.append(
                f"The schedule {recipe.schedule} lowers the learning rate{ending} by the {watched}."
            )
        if recipe.stop_patience:
            said.append(
                f"The run ends after {recipe.stop_patience} epochs without a lower {watched}."
            )
    if run.best is not None and (run.folder / BEST).exists():
        of_it = ": the figures below are of it" if run.file.name == BEST else ""
        said.append(
            f"{BEST} is the checkpoint of epoch {run.best['epoch']}, chosen by the lowest "
            f"{watched} of {counted(len(run.epochs), 'epoch')}{of_it}."
        )
    return said


WATCHED = {
    "val_loss": "validation loss",
    "val_top1_error": "validation top-1 error",
    "val_top5_error": "validation top-5 error",
}
