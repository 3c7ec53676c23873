"""Every network learns 64 images by heart: the loss reaches its layers, all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIDE, jpeg_bytes, prepare, smooth_picture, write_betons

from train import loop, metrics
from train.recipe import load_recipe
from train.state import RunSettings

CLASSES, OF_EACH = 8, 8


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 images of 8 classes that have nothing in common: they can only be learned by heart."""
    root = tmp_path_factory.mktemp("by-heart")
    generator = np.random.default_rng(0)
    for split, count in (("train", OF_EACH), ("val", 1)):
        for label in range(CLASSES):
            folder = root / "src" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                picture = smooth_picture(generator, SIDE, SIDE)
                (folder / f"{number}.jpg").write_bytes(jpeg_bytes(picture))
    return write_betons(prepare(root / "src", root / "out"), root) / "train.beton"


# Of each network a recipe that has it, and how many epochs it takes.
RECIPES = {
    "paper": ("paper", 26),
    "paper-batch-norm": ("demo", 16),
    "single-tower": ("steplr-100", 20),
    "authors-2012": ("authors-2012", 28),
    "batch-norm": ("caltech256-bn", 14),
    "torchvision": ("cifar10", 20),
}
# Grey levels over 60 have about the spread of 1 that He et al.'s initial weights are for.
BY_HEART = ["dropout=0", "pool_dropout=0", "noise=none", "mirror=false", "weight_decay=0"]
BY_HEART += ["init=he", "pixel_divisor=60", "order=random", "batch=16", "learning_rate=0.01"]
BY_HEART += ["schedule=one-cycle", "warmup_epochs=2", "layer_rates=[]", "stop_patience=0"]
WHOLE = ["learning_rate=0.003", "epochs=24"]  # full width: at 0.01 some begin by going astray


def learned(beton: Path, out: Path, network: str, width: float) -> list[dict[str, Any]]:
    """The epochs' rows; validation is of the very images that are trained."""
    name, epochs = RECIPES[network]
    values = [*BY_HEART, f"epochs={epochs}", f"width={width}"]
    recipe = load_recipe(name, [*values, *(WHOLE if width == 1 else [])])
    assert recipe.network == network
    loop.run(RunSettings(beton, beton, recipe, out, "never", torch.device("cpu"), workers=1))
    return [row for row in metrics.read(out / metrics.FILE_NAME) if row["kind"] == "epoch"]


# Response norm and batch norm each time; the other networks, and all at full width, in `make soak`.
QUICK = [("paper", 0.1), ("batch-norm", 0.1)]
LONG = [(network, width) for network in RECIPES for width in (0.1, 1.0)]


@pytest.mark.parametrize(
    ("network", "width"),
    [*QUICK, *(pytest.param(*each, marks=pytest.mark.soak) for each in LONG if each not in QUICK)],
)
def test_a_network_learns_64_images_by_heart(
    beton: Path, tmp_path: Path, network: str, width: float
) -> None:
    rows = learned(beton, tmp_path, network, width)
    assert rows[0]["loss"] > 1.5  # of 8 classes chance is 2.08
    assert rows[-1]["val_top1_error"] == 0
    assert rows[-1]["val_loss"] < 0.2
