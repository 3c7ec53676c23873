"""Every recipe's first 20 steps are as they were, within what other machines round differently.

`python tests/golden_recipes.py` writes the golden anew; look at its difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_recipes import GOLDEN, steps_of, trained

from train.recipe import LAYERS, recipe_names

KNOWN: dict[str, Any] = json.loads(GOLDEN.read_text())
LOSSES, NORMS = 1e-3, 1e-2  # relative, after 20 steps of float32


pytestmark = pytest.mark.usefixtures("one_thread")


def assert_as_it_was(found: dict[str, Any], known: dict[str, Any]) -> None:
    assert found["samples"] == known["samples"]
    assert found["pixels"] == known["pixels"]
    assert found["given"] == pytest.approx(known["given"], rel=1e-5, abs=10)
    assert found["losses"] == pytest.approx(known["losses"], rel=LOSSES)
    assert found["gradients"] == pytest.approx(known["gradients"], rel=NORMS)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_s_steps_are_as_they_were(betons: Path, name: str) -> None:
    found = trained(betons, name, steps_of(name))
    assert len(found["losses"]) == steps_of(name)
    assert set(found["gradients"]) == set(LAYERS)
    assert_as_it_was(found, KNOWN[name])


def test_a_step_of_the_whole_network_is_as_it_was(betons: Path) -> None:
    assert_as_it_was(trained(betons, "paper", steps=1, width=1.0), KNOWN["paper, whole"])


def test_the_golden_is_of_all_recipes() -> None:
    assert set(KNOWN) == {*recipe_names(), "paper, whole"}
