"""Learning rates: the paper's plateaus, fixed steps, one cycle, and when a run ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prep.program import UserError
from train.recipe import load_recipe
from train.schedule import Plateaus, check_validation, ended, learning_rate, plateaus

# Errors after each epoch with patience 2, and what they say: worked out by hand.
BY_HAND = [
    (0.9, 0, False),
    (0.8, 0, False),
    (0.8, 0, False),  # equal is no improvement: waited 1
    (0.85, 1, False),  # waited 2: first drop
    (0.81, 1, False),
    (0.7, 1, False),  # better: the wait starts anew
    (0.75, 1, False),
    (0.71, 2, False),  # second drop
    (0.72, 2, False),
    (0.73, 3, False),  # third drop, right after the second's patience
    (0.6, 3, False),
    (0.6, 3, False),
    (0.6, 3, True),  # a plateau after the third drop: the end
    (0.1, 3, True),  # what follows the end changes nothing
]


def test_plateaus_by_hand() -> None:
    errors = [error for error, _, _ in BY_HAND]
    for count, (_, drops, over) in enumerate(BY_HAND, start=1):
        assert plateaus(errors[:count], patience=2, drops=3) == Plateaus(drops, over), count


def test_no_errors_no_plateaus() -> None:
    assert plateaus([], patience=1, drops=0) == Plateaus(0, ended=False)


def test_without_drops_the_first_plateau_ends_the_run() -> None:
    assert plateaus([0.5, 0.5], patience=1, drops=0) == Plateaus(0, ended=True)


def test_the_rate_falls_tenfold_at_each_of_three_plateaus() -> None:
    recipe = load_recipe("paper", ["patience=2"])
    errors = [error for error, _, _ in BY_HAND]
    for count, (_, drops, _) in enumerate(BY_HAND, start=1):
        rate = learning_rate(recipe, float(count), errors[:count])
        assert rate == pytest.approx(0.01 * 0.1**drops, rel=1e-12)


def test_a_plateau_run_ends_after_the_fourth_plateau_or_at_the_last_epoch() -> None:
    recipe = load_recipe("paper", ["patience=2"])
    errors = [error for error, _, _ in BY_HAND]
    over = [ended(recipe, count, errors[:count]) for count in range(1, len(errors) + 1)]
    assert over == [last for _, _, last in BY_HAND]
    falling = [1.0 - epoch / 100 for epoch in range(90)]
    assert not ended(recipe, 89, falling[:89])
    assert ended(recipe, 90, falling)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0.0, 0.01),
        (24.999, 0.01),
        (25.0, 1e-3),
        (50.999, 1e-3),
        (51.0, 1e-4),
        (78.999, 1e-4),
        (79.0, 1e-5),
        (89.999, 1e-5),
    ],
)
def test_steps_of_the_paper_recipe_are_the_authors(epoch: float, rate: float) -> None:
    recipe = load_recipe("paper", ["schedule=steps"])
    assert learning_rate(recipe, epoch, []) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("schedule", ["steps", "one-cycle"])
def test_steps_and_one_cycle_never_look_at_validation(schedule: str) -> None:
    settings = [f"schedule={schedule}", "epochs=12", "patience=1", "drops=0"]
    recipe = load_recipe("demo", settings)
    worse = [0.1, 0.2, 0.3, 0.4]
    assert learning_rate(recipe, 4.0, worse) == learning_rate(recipe, 4.0, [])
    assert not ended(recipe, 4, worse)
    assert ended(recipe, recipe.epochs, [])


def one_cycle(per_epoch: int, *settings: str) -> list[float]:
    fixed = ["schedule=one-cycle", "epochs=12", "warmup_epochs=2", "learning_rate=0.01"]
    recipe = load_recipe("demo", [*fixed, *settings])
    steps = recipe.epochs * per_epoch
    return [learning_rate(recipe, step / per_epoch, []) for step in range(steps)]


def test_one_cycle_rises_linearly_then_falls_linearly_to_zero() -> None:
    # 100 steps an epoch, 2 epochs up and 10 down, top 0.01.
    rates = np.array(one_cycle(100))
    top = int(rates.argmax())
    assert top in (199, 200)
    assert rates[top] == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(np.diff(rates[:199]), 0.01 / 200, rtol=1e-9)
    np.testing.assert_allclose(np.diff(rates[201:]), -0.01 / 1000, rtol=1e-9)
    assert rates[0] == pytest.approx(0.0, abs=1e-5)
    assert rates[-1] == pytest.approx(0.0, abs=2e-5)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0, 3.0, 11.5])
def test_one_cycle_is_positive_and_at_most_the_recipes_rate(warmup: float) -> None:
    rates = one_cycle(7, f"warmup_epochs={warmup}")
    assert min(rates) > 0
    assert max(rates) <= 0.01


def test_one_cycle_without_warmup_starts_at_the_top() -> None:
    assert one_cycle(10, "warmup_epochs=0")[0] == 0.01


def test_a_resumed_run_computes_the_same_rates() -> None:
    """No state: the rate is a function of its arguments, in whatever order it is asked for."""
    recipe = load_recipe("paper", ["patience=2"])
    errors = [error for error, _, _ in BY_HAND]
    forward = [learning_rate(recipe, n, errors[:n]) for n in range(len(errors))]
    backward = [learning_rate(recipe, n, errors[:n]) for n in reversed(range(len(errors)))]
    assert forward == backward[::-1]


def test_plateau_without_validation_data_names_both_ways_out() -> None:
    with pytest.raises(UserError) as caught:
        check_validation(load_recipe("paper"), None)
    message = str(caught.value)
    assert "\n" not in message
    assert "--val-beton" in message
    assert "schedule=steps" in message
    assert "[25, 51, 79]" in message


def test_validation_data_is_asked_for_only_where_the_schedule_needs_it() -> None:
    check_validation(load_recipe("paper"), Path("val.beton"))
    check_validation(load_recipe("paper", ["schedule=steps"]), None)
    check_validation(load_recipe("demo"), None)
