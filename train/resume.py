"""Which checkpoint a run carries on from, and how it takes it up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from prep.program import UserError
from train import checkpoint as checkpoints
from train import schedule
from train.checkpoint import Checkpoint, TrainedOn
from train.recipe import BY_EPOCHS, Recipe
from train.screen import Screen
from train.state import Data, RunSettings, State


def resume_from(settings: RunSettings) -> Path | None:
    """The run or checkpoint to carry on.

    With --resume PATH that is PATH at first, and what lies in --out when the same command is given
    again; with --init PATH nothing at first. Raises UserError when --out holds a run that did not
    begin with PATH.
    """
    path = settings.out / checkpoints.FILE_NAME
    if settings.resume == "never":
        return None
    option, given = begun_with(settings)
    if not path.exists():
        return given if option == "--resume" else None
    if given is not None:
        begun = {str(each.resolve()) for each in (given, given / checkpoints.FILE_NAME)}
        if str(path.resolve()) not in begun and checkpoints.load(path).origin not in begun:
            raise UserError(
                f"{settings.out} holds a run that did not begin with {option} {given}; give "
                "another --out"
            )
    return path


def begun_with(settings: RunSettings) -> tuple[str, Path | None]:
    """The option that names another run to begin with, and what it names; "" and None without."""
    if settings.resume not in ("auto", "never"):
        return "--resume", Path(settings.resume)
    return ("--init", settings.init) if settings.init is not None else ("", None)


def origin_of(settings: RunSettings) -> str:
    """The checkpoint file that a run begins with; empty without one."""
    _, given = begun_with(settings)
    return "" if given is None else str(checkpoints.file_of(given).resolve())


def check_origin(settings: RunSettings) -> None:
    """Raises UserError when a run is to begin with what does not exist, or with two."""
    option, given = begun_with(settings)
    if given is None:
        return
    begins = settings.resume == "never" or not (settings.out / checkpoints.FILE_NAME).exists()
    if begins and not given.exists():
        words = "auto, never or " if option == "--resume" else ""
        raise UserError(
            f"{option} {given} does not exist; give {words}the --out folder of a `train run`"
        )
    if settings.init is None:
        return
    if option == "--resume":
        raise UserError(
            f"--init {settings.init} and --resume {settings.resume}: a run begins with the weights "
            "of one; give one of the two"
        )
    if checkpoints.file_of(settings.init).resolve().parent == settings.out.resolve():
        raise UserError(
            f"--init {settings.init} lies in --out {settings.out}, where the new run would take "
            "its place; give another --out"
        )


def check_resumable(
    checkpoint: Checkpoint, recipe: Recipe, data: TrainedOn, val_pixels_id: str, origin: Path
) -> None:
    """Raises UserError naming the first thing in which the run to resume differs from this one."""
    by_epochs = recipe.schedule in BY_EPOCHS
    # What says when a run ends may change: it goes on.
    free = {"about", "stop_patience"} | (set() if by_epochs else {"epochs"})
    for field in dataclasses.fields(Recipe):
        old, new = getattr(checkpoint.recipe, field.name), getattr(recipe, field.name)
        if old != new and field.name not in free:
            name = "recipe" if field.name == "name" else field.name
            raise UserError(
                f"{origin} was trained with {name} {old!r}, this command says {new!r}; give "
                f"another --out (with --init {origin} it begins with these weights), or --resume "
                "never to start over"
            )
    if checkpoint.data.pixels_id != data.pixels_id:
        raise UserError(
            f"{origin} was trained on other data (pixels_id {checkpoint.data.pixels_id[:12]}, this "
            f"beton's is {data.pixels_id[:12]}); give another --out, or --resume never to start "
            "over"
        )
    known, given = checkpoint.val_pixels_id, val_pixels_id
    # The best checkpoint is one of the same data; the schedule has to have had some all along.
    both = bool(known and given and recipe.watch != "loss")
    if known != given and (both or schedule.watches_validation(recipe)):
        raise UserError(
            f"{origin} has gone by other validation data (pixels_id {known[:12]}, this one is "
            f"{given[:12]}); give the former, another --out with --init {origin}, or --resume "
            "never to start over"
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
    state.clock.load(loaded.clock)
    state.epoch, state.epoch_step, state.step = loaded.epoch, loaded.epoch_step, loaded.step
    state.history = list(loaded.history)
    same_out = origin == settings.out / checkpoints.FILE_NAME
    state.origin = loaded.origin if same_out else origin_of(settings)
    within = f" and {state.epoch_step} steps" if state.epoch_step else ""
    screen.line(f"resumed from {origin} after epoch {state.epoch}{within}, step {state.step}")
    if loaded.threads != torch.get_num_threads():
        screen.line(
            f"warning: {origin} was trained with {loaded.threads} threads, this run has "
            f"{torch.get_num_threads()}: sums round differently, so losses may too"
        )
