"""The report's figures over epochs: what was measured, and where the rate was lowered."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from train.recipe import BY_EPOCHS
from train.report.drawing import COLOURS, INK, Curve, Drop, Line, Points, drawn, smoothed
from train.report.gather import Row, Run

NAMED_DROPS = 6  # more of them have no room for their rates


def by_epoch(run: Run, name: str) -> Points:
    """A figure of the epochs' rows."""
    return _points([(float(row["epoch"]), row) for row in run.epochs], name)


def by_step(run: Run, name: str) -> Points:
    """A figure of the rows every so many steps, over epochs; none where nothing tells how long."""
    if not (length := run.steps_per_epoch):
        return [], []
    return _points([(row["step"] / length, row) for row in run.steps], name)


def _points(rows: Sequence[tuple[float, Row]], name: str) -> Points:
    """Where the figure was measured, and is finite."""
    found = [(x, float(row[name])) for x, row in rows if row.get(name) is not None]
    return [x for x, _ in found], [y for _, y in found]


def learning(runs: Sequence[Run], window: int) -> list[Curve]:
    """Loss, top-1 and top-5 error, of training (dashed) and validation; the rate.

    window: epochs of a moving average, 1 for none.
    """
    titles = {"loss": "Loss", "top1_error": "Top-1 error", "top5_error": "Top-5 error"}
    drops = rate_drops(runs)
    curves = []
    for name, title in titles.items():
        lines = []
        for number, run in enumerate(runs):
            lines += _training_and_validation(run, name, number, len(runs), window)
        if lines:
            percent = name != "loss"
            curves.append(drawn(title, lines, drops=drops, percent=percent))
    if rates := _of_each(runs, [rate(run) for run in runs]):
        curves.append(drawn("Learning rate", rates, log=True))
    return curves


def rate(run: Run) -> Points:
    """The learning rate over epochs; where a schedule is of steps, so is the line."""
    if run.checkpoint.recipe.schedule in BY_EPOCHS:
        return by_step(run, "learning_rate")
    pieces = [(row["epoch"] - 1, row["epoch"], row["learning_rate"]) for row in run.epochs]
    ended = run.epochs[-1]["epoch"] if run.epochs else 0
    xs, ys = by_step(run, "learning_rate")
    if xs and xs[-1] > ended:  # the epoch that goes on
        pieces.append((math.floor(xs[0]) if not run.epochs else ended, xs[-1], ys[-1]))
    found: Points = ([], [])
    for value, group in itertools.groupby(pieces, key=lambda piece: piece[2]):
        same = list(group)
        found[0].extend((float(same[0][0]), float(same[-1][1])))
        found[1].extend((float(value), float(value)))
    return found


def rate_drops(runs: Sequence[Run]) -> list[Drop]:
    """Where rates are lowered: one mark where all runs do so, else each in its run's colour.

    The rate is told where it is the same, and where there is room for all of them.
    """
    of_each = [dict(run.drops) for run in runs]
    found = []
    for epoch in sorted({epoch for drops in of_each for epoch in drops}):
        rates = {drops.get(epoch) for drops in of_each}
        if None not in rates:
            found.append(Drop(epoch, rates.pop() if len(rates) == 1 else None, INK))
            continue
        found += [
            Drop(epoch, None, COLOURS[number % len(COLOURS)])
            for number, drops in enumerate(of_each)
            if epoch in drops
        ]
    if len(found) > NAMED_DROPS:
        return [dataclasses.replace(drop, rate=None) for drop in found]
    return found


def said_of_drops(runs: Sequence[Run]) -> str:
    """What the marks of rate_drops() are, in a sentence."""
    drops = rate_drops(runs)
    if not drops:
        return ""
    told = " to the value beside them" if any(drop.rate is not None for drop in drops) else ""
    whose = (
        "; coloured ones are of the run of that colour"
        if any(d.colour != INK for d in drops)
        else ""
    )
    return f"Dotted lines: the learning rate falls{told}{whose}."


def has_thin_line(runs: Sequence[Run]) -> bool:
    """Whether learning() draws the steps of a run behind its epochs, of which there are fewer."""
    if len(runs) > 1:
        return False
    (steps, _), (epochs, _) = by_step(runs[0], "loss"), by_epoch(runs[0], "loss")
    return len(steps) > len(epochs) > 0


def speed(runs: Sequence[Run]) -> list[Curve]:
    """Images a second, and the share of the time that waits for data."""
    titles = {"images_per_s": "Images a second", "data_wait": "Share of the time waiting for data"}
    return [
        drawn(title, lines, percent=name == "data_wait")
        for name, title in titles.items()
        if (lines := _of_each(runs, [by_step(run, name) for run in runs]))
    ]


def _training_and_validation(
    run: Run, name: str, number: int, runs: int, window: int
) -> list[Line]:
    """One run: two colours, and the steps behind. Several: a colour each."""
    colour = COLOURS[number % len(COLOURS)]
    other = colour if runs > 1 else COLOURS[1]
    of = f"{run.label}: " if runs > 1 else ""
    parts = [
        (f"{of}training", colour, True, by_epoch(run, name)),
        (f"{of}validation", other, False, by_epoch(run, f"val_{name}")),
    ]
    lines = []
    steps = by_step(run, name)
    if runs == 1 and len(steps[0]) > len(parts[0][3][0]):
        lines.append(Line("training, as it went", colour, steps, faint=bool(parts[0][3][0])))
    for label, ink, dashed, points in parts:
        if not points[0]:
            continue
        if window > 1:
            lines.append(Line(label, ink, points, dashed, faint=True))
        lines.append(Line(label, ink, smoothed(points, window), dashed))
    return lines


def _of_each(runs: Sequence[Run], points: Sequence[Points]) -> list[Line]:
    """A line for each run that has points."""
    return [
        Line(run.label, COLOURS[number % len(COLOURS)], of_run)
        for number, (run, of_run) in enumerate(zip(runs, points, strict=True))
        if of_run[0]
    ]


def errors_by_class(errors: Sequence[float]) -> Curve:
    """Errors of all classes, the hardest one first."""
    ranks = [float(rank) for rank in range(1, len(errors) + 1)]
    line = Line("top-1 error", COLOURS[1], (ranks, sorted(errors, reverse=True)))
    return drawn("Top-1 error by class", [line], percent=True, across="classes, hardest first")
