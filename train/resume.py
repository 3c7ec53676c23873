"""Which checkpoint a run carries on from, and how it takes it up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from prep.program import UserError
from train import checkpoint as checkpoints
from train import schedule
from train.checkpoint import Checkpoint, TrainedOn
from train.recipe import Recipe
from train.screen import Screen
from train.state import Data, RunSettings, State


def resume_from(settings: RunSettings) -> Path | None:
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
    begun = named_origin(settings)
    if begun != str(path.resolve()) and checkpoints.load(path).origin != begun:
        raise UserError(
            f"{settings.out} holds another run than {settings.resume}; give another --out"
        )
    return path


def named_origin(settings: RunSettings) -> str:
    """The checkpoint file that --resume PATH names; empty without one."""
    if settings.resume in ("auto", "never"):
        return ""
    return str(checkpoints.file_of(Path(settings.resume)).resolve())


def check_resumable(
    checkpoint: Checkpoint, recipe: Recipe, data: TrainedOn, val_pixels_id: str, origin: Path
) -> None:
    """Raises UserError naming the first thing in which the run to resume differs from this one."""
    by_epochs = recipe.schedule in ("one-cycle", "cosine")
    free = {"about"} if by_epochs else {"about", "epochs"}  # may be extended
    for field in dataclasses.fields(Recipe):
        old, new = getattr(checkpoint.recipe, field.name), getattr(recipe, field.name)
        if old != new and field.name not in free:
            raise UserError(
                f"{origin} was trained with {field.name} {old!r}, this command says {new!r}; give "
                "another --out, or --resume never to start over"
            )
    if checkpoint.data.pixels_id != data.pixels_id:
        raise UserError(
            f"{origin} was trained on other data (pixels_id {checkpoint.data.pixels_id[:12]}, this "
            f"beton's is {data.pixels_id[:12]}); give another --out, or --resume never to start "
            "over"
        )
    if schedule.watches_validation(recipe) and checkpoint.val_pixels_id != val_pixels_id:
        raise UserError(
            f"{origin} has gone by other validation data (pixels_id "
            f"{checkpoint.val_pixels_id[:12]}, this one is {val_pixels_id[:12]}); give the former, "
            "another --out, or --resume never to start over"
        )


def resume(state: State, origin: Path, settings: RunSettings, data: Data, screen: Screen) -> None:
    loaded = checkpoints.load(origin)
    val_pixels_id = data.val.card.pixels_id if data.val else ""
    check_resumable(loaded, settings.recipe, data.trained_on, val_pixels_id, origin)
    if loaded.labels_sha256 != data.train.labels_sha256:
        raise UserError(
            f"{origin} was trained on the same samples in another order (write-beton --order); "
            "give that beton, another --out, or --resume never to start over"
        )
    checkpoints.load_weights(state.network, loaded.network, origin)
    if state.average is not None:
        state.average.load_state_dict(loaded.average)
    state.sgd.load_state_dict(loaded.optimiser)
    state.scaler.load_state_dict(loaded.scaler)
    state.sums.load(loaded.sums)
    state.epoch, state.epoch_step, state.step = loaded.epoch, loaded.epoch_step, loaded.step
    state.history = list(loaded.history)
    same_out = origin == settings.out / checkpoints.FILE_NAME
    state.origin = loaded.origin if same_out else named_origin(settings)
    within = f" and {state.epoch_step} steps" if state.epoch_step else ""
    screen.line(f"resumed from {origin} after epoch {state.epoch}{within}, step {state.step}")
    if loaded.threads != torch.get_num_threads():
        screen.line(
            f"warning: {origin} was trained with {loaded.threads} threads, this run has "
            f"{torch.get_num_threads()}: sums round differently, so losses may too"
        )
