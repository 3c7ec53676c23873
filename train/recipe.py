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

NetworkName = Literal[
    "paper", "paper-batch-norm", "single-tower", "authors-2012", "batch-norm", "torchvision"
]
Layer = Literal["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
LAYERS: tuple[Layer, ...] = get_args(Layer)
Init = Literal["paper", "paper-fc-biases-0", "authors-2012", "he", "xavier-normal", "torch"]
DropoutOn = Literal["outputs", "inputs"]
Mean = Literal["matched", "centre", "channels", "half"]
TestCrop = Literal["centre", "random"]
Noise = Literal["standard-deviations", "eigenvalues", "per-image", "none"]
Velocity = Literal["kept", "scaled"]
ScheduleName = Literal["plateau", "reduce-on-plateau", "steps", "one-cycle", "cosine"]
BY_EPOCHS: tuple[ScheduleName, ...] = ("one-cycle", "cosine")  # planned to the last epoch
Precision = Literal["float32", "tf32", "bf16", "fp16"]
Watched = Literal["loss", "val_loss", "val_top1_error", "val_top5_error"]


@dataclasses.dataclass(frozen=True)
class LayerRate:
    """A layer's own learning rate, from an epoch on until its next row."""

    layer: Layer
    from_epoch: int  # counted from 0
    rate: float  # of its weights, in place of the schedule's; 0 freezes weights and biases


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Units: pixels on 0..255, epochs, images. The files in train/recipes/ cite the sources."""

    name: str
    about: str
    network: NetworkName  # train/networks/
    width: float  # factor on every hidden layer's size
    lrn_alpha: float  # response norm's factor of one squared term, where the network has it
    dropout: float  # probability, fc6 and fc7
    dropout_on: DropoutOn  # outputs, scaled in evaluation, or inputs, scaled in training
    pool_dropout: float  # probability, after the pools of the network batch-norm
    init: Init  # train/networks/initial.py
    image_side: int  # pixels: what images are brought to before the crop
    crop: int  # pixels
    test_crop: TestCrop  # of one view
    val_views: int  # of each validation image while the run goes on: 1, 5 or 10
    mean: Mean  # "matched": the mean image at the crop's own place; "centre": its centre crop;
    # "channels": a mean of each colour; "half": 127.5
    pixel_divisor: float  # of everything less its mean, in training and test
    mirror: bool  # horizontal reflections
    share: int  # so many consecutive samples have one crop and mirror
    noise: Noise  # what the factors on the principal axes multiply
    colour_noise: float  # standard deviation of the factors
    noise_divisor: float  # training images are divided by this in the epochs that have noise
    noise_until: int  # the first epoch without noise, counted from 0; 0: noise to the end
    order: OrderName  # of an epoch's samples (train.epoch_order)
    batch: int
    epochs: int  # at most, where the schedule can end earlier
    learning_rate: float  # of weights, at first
    bias_rate_factor: float  # of the biases' rate to the weights'
    bias_rate_falls: bool  # with the weights'; false: it stays where it began
    layer_rates: tuple[LayerRate, ...]
    momentum: float
    nesterov: bool
    velocity: Velocity  # when the rate changes: kept as it is (paper), or scaled as by torch's SGD
    weight_decay: float
    bias_decay: bool  # biases are decayed as weights are
    precision: Precision  # of the multiplications; weights and the response norm are float32
    label_smoothing: float  # this share of the label is spread over all classes
    average_decay: float  # of a moving average of the weights, which is judged; 0: none
    schedule: ScheduleName  # train/schedule.py
    watch: Watched  # what plateaus are of, stop_patience and the best checkpoint
    drop_factor: float  # plateau, reduce-on-plateau, steps: the rate is multiplied by this
    drops: int  # plateau: so many drops, then the next plateau ends the run
    patience: int  # plateau: epochs without improvement; reduce-on-plateau: one epoch more
    threshold: float  # reduce-on-plateau: by what share of the best an epoch must be better
    min_rate: float  # reduce-on-plateau: the lowest rate
    drop_epochs: tuple[int, ...]  # steps: the first epochs at the lower rates, counted from 0
    warmup_epochs: float  # one-cycle, cosine: linear rise, then fall to zero
    stop_patience: int  # epochs without improvement that end the run; 0: none do
    seed: int

    def __post_init__(self) -> None:
        limits: dict[str, bool] = {
            "width must be above 0": self.width > 0,
            "lrn_alpha must be at least 0": self.lrn_alpha >= 0,
            "dropout must be at least 0 and below 1": 0 <= self.dropout < 1,
            "dropout_on must be outputs for the network authors-2012": (
                self.network != "authors-2012" or self.dropout_on == "outputs"
            ),
            "dropout_on must be inputs for the network torchvision": (
                self.network != "torchvision" or self.dropout_on == "inputs"
            ),
            "pool_dropout must be at least 0 and below 1": 0 <= self.pool_dropout < 1,
            "crop must be 224 or 227": self.crop in (224, 227),
            f"image_side must be at least the crop, {self.crop}": self.image_side >= self.crop,
            "val_views must be 1, 5 or 10": self.val_views in (1, 5, 10),
            "val_views must be 1 where test_crop is random": (
                self.val_views == 1 or self.test_crop != "random"
            ),
            "pixel_divisor must be above 0": self.pixel_divisor > 0,
            "share must be at least 1": self.share >= 1,
            "colour_noise must be at least 0": self.colour_noise >= 0,
            "noise_divisor must be above 0": self.noise_divisor > 0,
            "noise_until must be at least 0": self.noise_until >= 0,
            "batch must be at least 1": self.batch >= 1,
            "epochs must be at least 1": self.epochs >= 1,
            "learning_rate must be above 0": self.learning_rate > 0,
            "bias_rate_factor must be above 0": self.bias_rate_factor > 0,
            "layer_rates must have epochs and rates of at least 0": all(
                row.from_epoch >= 0 and row.rate >= 0 for row in self.layer_rates
            ),
            "momentum must be at least 0 and below 1": 0 <= self.momentum < 1,
            "momentum must be above 0 where nesterov is true": (
                not self.nesterov or self.momentum > 0
            ),
            "weight_decay must be at least 0": self.weight_decay >= 0,
            "label_smoothing must be at least 0 and below 1": 0 <= self.label_smoothing < 1,
            "average_decay must be at least 0 and below 1": 0 <= self.average_decay < 1,
            "drop_factor must be above 0 and below 1": 0 < self.drop_factor < 1,
            "drops must be at least 0": self.drops >= 0,
            "patience must be at least 1": self.patience >= 1,
            "threshold must be at least 0 and below 1": 0 <= self.threshold < 1,
            "min_rate must be at least 0": self.min_rate >= 0,
            "warmup_epochs must be at least 0": self.warmup_epochs >= 0,
            f"warmup_epochs must be below the {self.epochs} epochs of a {self.schedule} schedule "
            "(--set warmup_epochs=0 leaves the rise out)": (
                self.schedule not in BY_EPOCHS or self.warmup_epochs < self.epochs
            ),
            "stop_patience must be at least 0": self.stop_patience >= 0,
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
    except FileNotFoundError as error:
        raise UserError(
            f"recipe {path} does not exist; `train recipes NAME` prints one to begin with"
        ) from error
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
    if wanted == tuple[LayerRate, ...]:
        return _layer_rates(origin, key, value)
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


def _layer_rates(origin: str, key: str, value: Any) -> tuple[LayerRate, ...]:
    types = get_type_hints(LayerRate)
    if not isinstance(value, list | tuple) or not all(
        isinstance(row, dict) and row.keys() == types.keys() for row in value
    ):
        raise UserError(
            f"recipe {origin}: {key} is {value!r}, it must be a list of tables such as "
            '{layer = "conv1", from_epoch = 72, rate = 0.0}'
        )
    return tuple(
        LayerRate(**{part: _typed(origin, part, row[part], types[part]) for part in types})
        for row in value
    )
