"""A recipe: every value that decides a training run, one frozen record.

Recipes are TOML files, one line a value with its source behind it: those of `train/recipes/` go
by name, others by path. Unknown keys, missing keys and values out of range are errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from prep.program import UserError
from train.epoch_order import OrderName

Norm = Literal["lrn", "batch"]
Init = Literal["paper", "he"]
Mean = Literal["matched", "centre"]
Noise = Literal["standard-deviations", "eigenvalues", "per-image", "none"]
ScheduleName = Literal["plateau", "steps", "one-cycle"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Units: pixels on 0..255, epochs, images. The files in train/recipes/ cite the sources."""

    name: str
    about: str
    width: float  # factor on every hidden layer's size
    norm: Norm  # after the ReLU of conv1 and conv2
    init: Init
    dropout: float  # probability, on the outputs of fc6 and fc7
    mirror: bool  # horizontal reflections
    share: int  # so many consecutive samples have one crop and mirror
    mean: Mean  # "matched": the mean image at the crop's own place; "centre": its centre crop
    noise: Noise  # what the factors on the principal axes multiply
    colour_noise: float  # standard deviation of the factors
    noise_divisor: float  # training images are divided by this in the epochs that have noise
    noise_until: int  # the first epoch without noise, counted from 0; 0: noise to the end
    order: OrderName  # of an epoch's samples (train.epoch_order)
    batch: int
    epochs: int  # at most, where the schedule can end earlier
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: ScheduleName
    drop_factor: float  # plateau, steps: the rate is multiplied by this
    drops: int  # plateau: so many drops, then the next plateau ends the run
    patience: int  # plateau: epochs without a lower validation error
    drop_epochs: tuple[int, ...]  # steps: the first epochs at the lower rates, counted from 0
    warmup_epochs: float  # one-cycle: linear rise, then linear fall to zero
    seed: int

    def __post_init__(self) -> None:
        limits: dict[str, bool] = {
            "width must be above 0": self.width > 0,
            "dropout must be at least 0 and below 1": 0 <= self.dropout < 1,
            "share must be at least 1": self.share >= 1,
            "colour_noise must be at least 0": self.colour_noise >= 0,
            "noise_divisor must be above 0": self.noise_divisor > 0,
            "noise_until must be at least 0": self.noise_until >= 0,
            "batch must be at least 1": self.batch >= 1,
            "epochs must be at least 1": self.epochs >= 1,
            "learning_rate must be above 0": self.learning_rate > 0,
            "momentum must be at least 0 and below 1": 0 <= self.momentum < 1,
            "weight_decay must be at least 0": self.weight_decay >= 0,
            "drop_factor must be above 0 and below 1": 0 < self.drop_factor < 1,
            "drops must be at least 0": self.drops >= 0,
            "patience must be at least 1": self.patience >= 1,
            "warmup_epochs must be at least 0": self.warmup_epochs >= 0,
            f"warmup_epochs must be below the {self.epochs} epochs of a one-cycle schedule (--set "
            "warmup_epochs=0 leaves the rise out)": (
                self.schedule != "one-cycle" or self.warmup_epochs < self.epochs
            ),
            "seed must be at least 0 and below 2^63": 0 <= self.seed < 2**63,  # an int64 in numba
        }
        for rule, holds in limits.items():
            if not holds:
                key = rule.split(" ", 1)[0]
                raise UserError(f"recipe {self.name}: {rule}, it is {getattr(self, key)}")


def recipe_names() -> list[str]:
    """The recipes that come with the program."""
    folder = resources.files("train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def recipe_text(name_or_path: str) -> str:
    """The TOML text of a recipe. Raises UserError when there is none of that name or path."""
    if name_or_path in recipe_names():
        return (resources.files("train") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise UserError(
            f"no recipe is called {name_or_path!r}; there are {', '.join(recipe_names())}, or give "
            "a .toml file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} cannot be read: {error}; give a .toml file") from error


def load_recipe(name_or_path: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` settings in order.

    Raises UserError naming the file, key and value of the first thing that is wrong.
    """
    try:
        values = tomllib.loads(recipe_text(name_or_path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name_or_path} is not TOML: {error}") from error
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: write key=value, such as --set epochs=5")
        values[key.strip()] = _toml_value(text.strip())
    return recipe_from_values(values, name_or_path)


def recipe_from_values(values: dict[str, Any], origin: str) -> Recipe:
    """Check keys and types, and make the record. Raises UserError naming key and value."""
    types = get_type_hints(Recipe)
    for key in values:
        if key not in types:
            close = difflib.get_close_matches(key, types, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; keys are {', '.join(types)}"
            raise UserError(f"recipe {origin}: unknown key {key!r}{hint}")
    missing = [key for key in types if key not in values]
    if missing:
        raise UserError(
            f"recipe {origin}: missing {', '.join(missing)}; `train recipes paper` prints a whole "
            "one"
        )
    return Recipe(**{key: _typed(origin, key, values[key], types[key]) for key in types})


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word, such as schedule=steps


def _typed(origin: str, key: str, value: Any, wanted: Any) -> Any:
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise UserError(
            f"recipe {origin}: {key} is {value!r}, it must be one of {', '.join(get_args(wanted))}"
        )
    if get_origin(wanted) is tuple:
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
        raise UserError(f"recipe {origin}: {key} is {value!r}, it must be a list of whole numbers")
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is float and not math.isfinite(value):
        raise UserError(f"recipe {origin}: {key} is {value!r}, it must be a finite number")
    if type(value) is wanted:
        return value
    raise UserError(f"recipe {origin}: {key} is {value!r}, it must be of type {wanted.__name__}")
