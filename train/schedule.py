"""The learning rate as a function of the recipe, the epoch and the validation errors so far.

`plateau` is the paper's (section 5): divided by 10 when the validation error stops improving,
three times, then the run ends. `steps` drops at fixed epochs, `one-cycle` rises and falls
linearly; neither looks at validation data. No state is kept: a resumed run computes the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prep.program import UserError
from train.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Plateaus:
    """What a sequence of validation errors says."""

    drops: int  # how often the rate has been lowered
    ended: bool  # there was one more plateau after the last drop


def plateaus(errors: Sequence[float], patience: int, drops: int) -> Plateaus:
    """Count plateaus: each is `patience` epochs in a row without an error below the lowest.

    errors: validation top-1 error after each epoch. After a drop the count starts anew.
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


def learning_rate(recipe: Recipe, epoch: float, errors: Sequence[float]) -> float:
    """The rate at a point of training.

    epoch: epochs done so far, with the part of the running one; errors: see plateaus().
    """
    if recipe.schedule == "plateau":
        dropped = plateaus(errors, recipe.patience, recipe.drops).drops
        return recipe.learning_rate * recipe.drop_factor**dropped
    if recipe.schedule == "steps":
        dropped = sum(epoch >= start for start in recipe.drop_epochs)
        return recipe.learning_rate * recipe.drop_factor**dropped
    # a thousandth of an epoch above zero, where set_rate() could not divide
    rise = min((epoch + 1e-3) / recipe.warmup_epochs, 1.0) if recipe.warmup_epochs else 1.0
    fall = (recipe.epochs - epoch) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * min(rise, fall)


def ended(recipe: Recipe, epoch: int, errors: Sequence[float]) -> bool:
    """Whether training is over after `epoch` whole epochs."""
    if epoch >= recipe.epochs:
        return True
    return recipe.schedule == "plateau" and plateaus(errors, recipe.patience, recipe.drops).ended


def check_validation(recipe: Recipe, val_beton: Path | None) -> None:
    """Raises UserError when the schedule watches validation error and there is none."""
    if recipe.schedule == "plateau" and val_beton is None:
        raise UserError(
            f"recipe {recipe.name} lowers the learning rate when the validation error stops "
            "improving, and there is no validation data: give --val-beton FILE, or --set "
            f"schedule=steps, which drops at epochs {list(recipe.drop_epochs)} and needs none"
        )
