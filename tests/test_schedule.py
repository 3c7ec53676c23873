"""Learning rates by epoch, of every recipe: plateaus, fixed steps, rises and falls, a run's end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.program import UserError
from train.recipe import Recipe, load_recipe, recipe_names
from train.schedule import (
    Plateaus,
    check_validation,
    ended,
    learning_rate,
    plateaus,
    watches_validation,
)

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


def measured(recipe: Recipe, values: Sequence[float]) -> list[dict[str, float]]:
    """A history in which the recipe's `watch` went like that, and all else ever better."""
    names = ("loss", "val_loss", "val_top1_error", "val_top5_error")
    return [
        {name: -float(epoch) for name in names} | {recipe.watch: value}
        for epoch, value in enumerate(values)
    ]


def by_hand(recipe: Recipe) -> list[dict[str, float]]:
    return measured(recipe, [error for error, _, _ in BY_HAND])


# --------------------------------------------------------------------------- the paper's plateaus


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
    history = by_hand(recipe)
    for count, (_, drops, _) in enumerate(BY_HAND, start=1):
        rate = learning_rate(recipe, float(count), history[:count])
        assert rate == pytest.approx(0.01 * 0.1**drops, rel=1e-12)


def test_a_plateau_run_ends_after_the_fourth_plateau_or_at_the_last_epoch() -> None:
    recipe = load_recipe("paper", ["patience=2"])
    history = by_hand(recipe)
    over = [bool(ended(recipe, count, history[:count])) for count in range(1, len(history) + 1)]
    assert over == [last for _, _, last in BY_HAND]
    falling = measured(recipe, [1.0 - epoch / 100 for epoch in range(90)])
    assert not ended(recipe, 89, falling[:89])
    assert ended(recipe, 90, falling)


# --------------------------------------------------------------------------- torch's plateaus


def torchs(recipe: Recipe, values: Sequence[float]) -> list[float]:
    """The rates before each epoch and after the last, by torch's own scheduler."""
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], recipe.learning_rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        sgd,
        factor=recipe.drop_factor,
        patience=recipe.patience,
        threshold=recipe.threshold,
        min_lr=recipe.min_rate,
    )
    rates = [sgd.param_groups[0]["lr"]]
    for value in values:
        scheduler.step(value)
        rates.append(sgd.param_groups[0]["lr"])
    return rates


def ours(recipe: Recipe, values: Sequence[float]) -> list[float]:
    history = measured(recipe, values)
    return [learning_rate(recipe, float(n), history[:n]) for n in range(len(values) + 1)]


# A few values again and again, and some that differ by about the threshold, make plateaus.
LOSSES = st.lists(
    st.one_of(
        st.sampled_from([0.5, 0.49996, 0.49995, 0.4999, 0.6, float("nan"), float("inf")]),
        st.floats(0, 3),
    ),
    max_size=120,
)


@pytest.mark.parametrize("name", ["caltech256-bn", "cifar10", "plain-120"])
@given(losses=LOSSES)
def test_equals_torchs_reduce_on_plateau(name: str, losses: list[float]) -> None:
    recipe = load_recipe(name)
    assert ours(recipe, losses) == torchs(recipe, losses)


@pytest.mark.parametrize(
    ("name", "first", "factor", "floor"),
    [("caltech256-bn", 6, 0.5, 0.0), ("cifar10", 4, 0.5, 1e-6), ("plain-120", 11, 0.1, 0.0)],
)
def test_reduce_on_plateau_by_epoch(name: str, first: int, factor: float, floor: float) -> None:
    """Without any improvement: a drop after patience + 1 epochs, and so on down to the floor."""
    recipe = load_recipe(name)
    rates = ours(recipe, [1.0] * 100)
    for epoch, rate in enumerate(rates):
        drops = max(0, epoch - 1) // first
        expected = max(0.01 * factor**drops, floor)
        if expected > 2e-8:  # below, torch's eps keeps the rate
            assert rate == pytest.approx(expected, rel=1e-9)
    assert rates[-1] >= floor


# --------------------------------------------------------------------------- the recipes by epoch

STEPPED = {
    "paper": (["schedule=steps"], {0: 0.01, 25: 1e-3, 51: 1e-4, 79: 1e-5}, 90),
    "authors-2012": ([], {0: 0.01, 25: 1e-3, 51: 1e-4, 79: 1e-5}, 91),
    "steplr-100": ([], {0: 0.01, 30: 1e-3, 60: 1e-4, 90: 1e-5}, 100),
    "tiny-imagenet": ([], {0: 0.01, 7: 1e-3, 14: 1e-4, 21: 1e-5, 28: 1e-6}, 30),
}


@pytest.mark.parametrize("name", STEPPED)
def test_steps_by_epoch(name: str) -> None:
    settings, table, epochs = STEPPED[name]
    recipe = load_recipe(name, settings)
    assert recipe.epochs == epochs
    expected = 0.0
    for epoch in range(epochs):
        expected = table.get(epoch, expected)
        for part in (0.0, 0.999):
            rate = learning_rate(recipe, epoch + part, [])
            assert rate == pytest.approx(expected, rel=1e-12), epoch
        assert not ended(recipe, epoch, [])
    assert ended(recipe, epochs, [])


@pytest.mark.parametrize(
    ("name", "step_size", "epochs"), [("steplr-100", 30, 100), ("tiny-imagenet", 7, 30)]
)
def test_steps_are_those_of_torchs_steplr(name: str, step_size: int, epochs: int) -> None:
    recipe = load_recipe(name)
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(sgd, step_size, 0.1)
    for epoch in range(epochs):
        rate = learning_rate(recipe, float(epoch), [])
        assert rate == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-12)
        sgd.step()
        scheduler.step()


# The highest and the lowest number of epochs: with and without improvements.
ENDS = {
    "paper": (90, 21),  # the first is an improvement, then four plateaus of 5
    "authors-2012": (91, 91),
    "fast": (30, 30),
    "demo": (4, 4),
    "steplr-100": (100, 100),
    "caltech256-bn": (200, 200),
    "tiny-imagenet": (30, 30),
    "cifar10": (50, 8),  # the first is an improvement, then early stopping's 7
    "plain-120": (120, 120),
}


@pytest.mark.parametrize("name", recipe_names())
def test_the_end_of_every_recipe(name: str) -> None:
    recipe = load_recipe(name)
    better = measured(recipe, [1 - epoch / 1000 for epoch in range(300)])
    level = measured(recipe, [1.0] * 300)
    last = [
        next(epoch for epoch in range(1, 300) if ended(recipe, epoch, history[:epoch]))
        for history in (better, level)
    ]
    assert tuple(last) == ENDS[name]


def test_early_stopping_counts_from_the_lowest_value() -> None:
    recipe = load_recipe("cifar10")
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96]  # the lowest, then seven
    history = measured(recipe, losses)
    assert [bool(ended(recipe, n, history[:n])) for n in (8, 9)] == [False, True]
    saved = measured(recipe, [*losses[:8], 0.89, *losses[2:8]])
    assert not ended(recipe, len(saved), saved)


@pytest.mark.parametrize("schedule", ["steps", "one-cycle", "cosine"])
def test_some_schedules_never_look_at_validation(schedule: str) -> None:
    settings = [f"schedule={schedule}", "epochs=12", "patience=1", "drops=0"]
    recipe = load_recipe("demo", settings)
    worse = measured(recipe, [0.1, 0.2, 0.3, 0.4])
    assert learning_rate(recipe, 4.0, worse) == learning_rate(recipe, 4.0, [])
    assert not ended(recipe, 4, worse)
    assert ended(recipe, recipe.epochs, [])


# --------------------------------------------------------------------------- one rise, one fall


def cycle(per_epoch: int, *settings: str) -> list[float]:
    fixed = ["schedule=one-cycle", "epochs=12", "warmup_epochs=2", "learning_rate=0.01"]
    recipe = load_recipe("demo", [*fixed, *settings])
    steps = recipe.epochs * per_epoch
    return [learning_rate(recipe, step / per_epoch, []) for step in range(steps)]


def test_one_cycle_rises_linearly_then_falls_linearly_to_zero() -> None:
    # 100 steps an epoch, 2 epochs up and 10 down, top 0.01.
    rates = np.array(cycle(100))
    top = int(rates.argmax())
    assert top in (199, 200)
    assert rates[top] == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(np.diff(rates[:199]), 0.01 / 200, rtol=1e-9)
    np.testing.assert_allclose(np.diff(rates[201:]), -0.01 / 1000, rtol=1e-9)
    assert rates[0] == pytest.approx(0.0, abs=1e-5)
    assert rates[-1] == pytest.approx(0.0, abs=2e-5)


def test_cosine_rises_linearly_then_falls_as_torchs_cosine_annealing() -> None:
    rates = np.array(cycle(10, "schedule=cosine"))
    np.testing.assert_allclose(np.diff(rates[:19]), 0.01 / 20, rtol=1e-9)
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=100)
    for rate in rates[20:]:
        assert rate == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-6)
        sgd.step()
        scheduler.step()


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0, 3.0, 11.5])
def test_a_cycle_is_positive_and_at_most_the_recipes_rate(warmup: float, schedule: str) -> None:
    rates = cycle(7, f"warmup_epochs={warmup}", f"schedule={schedule}")
    assert min(rates) > 0
    assert max(rates) <= 0.01


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_a_cycle_without_warmup_starts_at_the_top(schedule: str) -> None:
    assert cycle(10, "warmup_epochs=0", f"schedule={schedule}")[0] == 0.01


# --------------------------------------------------------------------------- no state, no data


@pytest.mark.parametrize("name", ["paper", "cifar10"])
def test_a_resumed_run_computes_the_same_rates(name: str) -> None:
    """No state: the rate is a function of its arguments, in whatever order it is asked for."""
    recipe = load_recipe(name, ["patience=2"])
    history = by_hand(recipe)
    forward = [learning_rate(recipe, n, history[:n]) for n in range(len(history))]
    backward = [learning_rate(recipe, n, history[:n]) for n in reversed(range(len(history)))]
    assert forward == backward[::-1]


def refusal(recipe: Recipe) -> str:
    with pytest.raises(UserError) as caught:
        check_validation(recipe, None)
    message = str(caught.value)
    assert "\n" not in message
    assert "--val-beton" in message
    return message


def test_plateau_without_validation_data_names_both_ways_out() -> None:
    message = refusal(load_recipe("paper"))
    assert "lowers the learning rate when the validation error stops improving" in message
    assert "--set schedule=steps, which drops at epochs [25, 51, 79]" in message


def test_early_stopping_without_validation_data_names_both_keys() -> None:
    message = refusal(load_recipe("cifar10"))
    assert "ends when the validation loss stops improving" in message
    assert "--set schedule=steps --set stop_patience=0" in message
    assert "ends when" in refusal(load_recipe("demo", ["stop_patience=2"]))


def test_validation_data_is_asked_for_only_where_it_is_needed() -> None:
    check_validation(load_recipe("paper"), Path("val.beton"))
    needing = {name for name in recipe_names() if watches_validation(load_recipe(name))}
    assert needing == {"paper", "cifar10", "plain-120"}
    for name in set(recipe_names()) - needing:
        check_validation(load_recipe(name), None)
    check_validation(load_recipe("paper", ["schedule=steps"]), None)
    check_validation(load_recipe("paper", ["watch=loss"]), None)
