"""Which checkpoint a run carries on from, and how it takes it up."""

from __future__ import annotations

from pathlib import Path

import torch

from prep.program import UserError
from train import checkpoint as checkpoints
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
    path = Path(settings.resume)
    return str((path / checkpoints.FILE_NAME if path.is_dir() else path).resolve())


def resume(state: State, origin: Path, settings: RunSettings, data: Data, screen: Screen) -> None:
    loaded = checkpoints.load(origin)
    val_pixels_id = data.val.card.pixels_id if data.val else ""
    checkpoints.check_resumable(loaded, settings.recipe, data.trained_on, val_pixels_id, origin)
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
