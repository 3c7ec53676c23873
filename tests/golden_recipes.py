"""20 steps of every recipe on a small beton: `python tests/golden_recipes.py` writes the golden.

One thread, float32, batches of 8, an eighth of the width, a hundredth of the learning rate: at the
recipes' own, steps of such batches amplify what another processor rounds differently. Batch norm
after every ReLU (caltech256-bn) does so at any rate, which leaves one step of it.

Of the first batch: which samples, the crc32 of their stored pixels, the sum of what the network is
given. Then the loss of each step and, after the last one, the norm of each layer's gradient. One
step of the paper's whole network.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from conftest import make_source, prepare, write_betons

from train import optimiser, schedule
from train.loader import evaluation_batches
from train.processes import ALONE
from train.recipe import LAYERS, load_recipe, recipe_names
from train.screen import Screen
from train.start import feeding, open_data, start
from train.state import RunSettings
from train.step import updater

GOLDEN = Path(__file__).with_suffix(".json")
STEPS = 20
FEWER_STEPS = {"caltech256-bn": 1}
RATE = 0.01  # of each recipe's learning rate
CPU = torch.device("cpu")


def steps_of(name: str) -> int:
    return FEWER_STEPS.get(name, STEPS)


def trained(betons: Path, name: str, steps: int = STEPS, width: float = 0.125) -> dict[str, Any]:
    """What the golden holds of a recipe."""
    rate = load_recipe(name).learning_rate * RATE
    small = [f"width={width}", "batch=8", "precision=float32", f"learning_rate={rate!r}"]
    recipe = load_recipe(name, small)
    val = betons / "val.beton"
    settings = RunSettings(betons / "train.beton", val, recipe, betons, "never", CPU, workers=1)
    data = open_data(settings)
    state = start(settings, data, ALONE, Screen(silent=True))
    update = updater(settings, state, ALONE, Screen(silent=True), len(data.train))
    batches = feeding(settings, data, ALONE)
    stored = torch.cat(
        [b.images.clone() for b in evaluation_batches(data.train, 8, 1, CPU).sequential()]
    )
    found: dict[str, Any] = {"losses": []}
    network = state.network.train()
    for epoch in range(steps):
        for number, batch in enumerate(batches.epoch(recipe.seed, epoch)):
            if not found["losses"]:
                found["samples"] = batch.samples.tolist()
                found["pixels"] = zlib.crc32(stored[batch.samples].numpy().tobytes())
                found["given"] = float(batch.images.double().sum())
            rate = schedule.learning_rate(recipe, epoch + number / len(batches), [])
            optimiser.set_rates(update.sgd, recipe, epoch, rate)
            total = batches.samples_of(number)
            found["losses"].append(float(update.step(batch, state.step, total)[0]) / total)
            state.step += 1
            if state.step == steps:
                found["gradients"] = {
                    layer: float(torch.linalg.vector_norm(gradient))
                    for layer in LAYERS
                    if (gradient := network.get_parameter(f"{layer}.weight").grad) is not None
                }
                return found
    raise AssertionError("fewer steps than asked for")


def golden(betons: Path) -> dict[str, Any]:
    made = {name: trained(betons, name, steps_of(name)) for name in recipe_names()}
    return made | {"paper, whole": trained(betons, "paper", steps=1, width=1.0)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = prepare(make_source(folder / "src"), folder / "out")
        made = golden(write_betons(prepared, folder))
        GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
