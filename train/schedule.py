"""The learning rate, and a run's end, as functions of the recipe, the epoch and what was measured.

| schedule          | the rate                                                | looks at     |
|-------------------|---------------------------------------------------------|--------------|
| plateau           | times drop_factor when `watch` stops improving, so many | `watch`      |
|                   | times, then the run ends (paper, section 5)             |              |
| reduce-on-plateau | as torch.optim.lr_scheduler.ReduceLROnPlateau           | `watch`      |
| steps             | times drop_factor at fixed epochs                       | nothing      |
| one-cycle         | linear rise, linear fall to zero                        | nothing      |
| cosine            | linear rise, half a cosine's fall to zero               | nothing      |

With `stop_patience` any of them ends when `watch` has not been lower for so many epochs. No state
is kept: a resumed run computes the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from prep.program import UserError, counted
from train.recipe import BY_EPOCHS, Recipe, Watched

WATCHED: tuple[Watched, ...] = get_args(Watched)
# What was measured after each epoch, by the names of metrics.jsonl: at least the recipe's `watch`.
History = Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Plateaus:
    """What a sequence of errors says."""

    drops: int  # how often the rate has been lowered
    ended: bool  # there was one more plateau after the last drop


def plateaus(errors: Sequence[float], patience: int, drops: int) -> Plateaus:
    """Count plateaus: each is `patience` epochs in a row without an error below the lowest.

    errors: one after each epoch. After a drop the count starts anew.
    """
    best, waited, dropped = float("inf"), 0, 0
    for error in errors:
        if error < best:
            best, waited = error, 0
            continue
        waited += 1
        if waited == patience:
            if dropped == drops:
                return Plateaus(dropped, ended=True)
            dropped, waited = dropped + 1, 0
    return Plateaus(dropped, ended=False)


def reduced_on_plateau(recipe: Recipe, errors: Sequence[float]) -> float:
    """The rate of torch's ReduceLROnPlateau(mode="min", threshold_mode="rel", cooldown=0).

    It waits one epoch longer than `patience`, counts as better only what is below the best by the
    share `threshold`, and leaves out a change of the rate by 1e-8 or less (its eps).
    """
    rate, best, waited = recipe.learning_rate, float("inf"), 0
    for error in errors:
        if error < best * (1 - recipe.threshold):
            best, waited = error, 0
            continue
        waited += 1
        if waited > recipe.patience:
            waited = 0
            lower = max(rate * recipe.drop_factor, recipe.min_rate)
            if rate - lower > 1e-8:
                rate = lower
    return rate


def learning_rate(recipe: Recipe, epoch: float, history: History) -> float:
    """The rate of weights at a point of training; above 0.

    epoch: epochs done so far, with the part of the running one.
    """
    match recipe.schedule:
        case "plateau":
            dropped = plateaus(_watched(recipe, history), recipe.patience, recipe.drops).drops
            return recipe.learning_rate * recipe.drop_factor**dropped
        case "reduce-on-plateau":
            return reduced_on_plateau(recipe, _watched(recipe, history))
        case "steps":
            dropped = sum(epoch >= start for start in recipe.drop_epochs)
            return recipe.learning_rate * recipe.drop_factor**dropped
        case "one-cycle" | "cosine":
            # a thousandth of an epoch above zero, where the velocity could not be kept
            rise = min((epoch + 1e-3) / recipe.warmup_epochs, 1.0) if recipe.warmup_epochs else 1.0
            fall = (recipe.epochs - epoch) / (recipe.epochs - recipe.warmup_epochs)
            if recipe.schedule == "cosine":
                fall = 0.5 - 0.5 * math.cos(math.pi * min(fall, 1.0))
            return recipe.learning_rate * min(rise, fall)


def ended(recipe: Recipe, epoch: int, history: History) -> str:
    """Why training is over after `epoch` whole epochs, and how to go on; "" when it is not."""
    anew = "to go on, give --init and another --out"
    if epoch >= recipe.epochs:
        by_epochs = recipe.schedule in BY_EPOCHS
        way = anew if by_epochs else "to go on, give a larger --set epochs="
        return f"epoch {epoch} of at most {recipe.epochs}; {way}"
    patience = recipe.stop_patience
    if patience and plateaus(_watched(recipe, history), patience, drops=0).ended:
        return (
            f"epoch {epoch}, no lower {recipe.watch} for {counted(patience, 'epoch')}; to go on, "
            "give a larger --set stop_patience="
        )
    if recipe.schedule == "plateau" and (
        plateaus(_watched(recipe, history), recipe.patience, recipe.drops).ended
    ):
        return (
            f"epoch {epoch}, no lower {recipe.watch} for {counted(recipe.patience, 'epoch')} after "
            f"{counted(recipe.drops, 'drop')} of the learning rate; {anew}"
        )
    return ""


def is_best(recipe: Recipe, history: History, measured: Mapping[str, float]) -> bool:
    """Whether an epoch is better than all before it, by what the recipe watches.

    False where that was not measured: without validation data there is no best.
    """
    if recipe.watch not in measured:
        return False
    # A run may have had no validation data at first.
    before = (epoch[recipe.watch] for epoch in history if recipe.watch in epoch)
    return measured[recipe.watch] < min(before, default=math.inf)


def watches_validation(recipe: Recipe) -> bool:
    """Whether validation data decides on the rate or the run's end."""
    lowers = recipe.schedule in ("plateau", "reduce-on-plateau")
    return recipe.watch != "loss" and (lowers or recipe.stop_patience > 0)


def check_validation(recipe: Recipe, val_beton: Path | None) -> None:
    """Raises UserError when the schedule watches validation data and there is none."""
    if val_beton is not None or not watches_validation(recipe):
        return
    watched = {
        "val_loss": "validation loss",
        "val_top1_error": "validation error",
        "val_top5_error": "validation top-5 error",
    }[recipe.watch]
    if recipe.stop_patience:
        does, way_out = "ends", "--set schedule=steps --set stop_patience=0"
    else:
        does, way_out = "lowers the learning rate", "--set schedule=steps"
    raise UserError(
        f"recipe {recipe.name} {does} when the {watched} "
        "stops improving, and there is no validation data: give --val-beton FILE, or "
        f"{way_out}, which drops at epochs {list(recipe.drop_epochs)} and needs none"
    )


def _watched(recipe: Recipe, history: History) -> list[float]:
    return [measured[recipe.watch] for measured in history]
