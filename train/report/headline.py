"""The tables at a report's head: this run beside what is published, and several runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prep.program import counted
from train.clock import duration
from train.dataset import Dataset
from train.networks.layers import AlexNet
from train.report import published, recipe_values
from train.report.data import Missing
from train.report.gather import Row, Run
from train.report.judging import Judgement

NONE = "-"
WHILE = "validation data of the run"


@dataclasses.dataclass(frozen=True)
class Result:
    """One row; figures as they are shown."""

    what: str
    data: str
    views: str
    top1: str
    top5: str
    loss: str = NONE
    own: bool = True


@dataclasses.dataclass(frozen=True)
class Compared:
    """One of several runs, by its rows."""

    label: str
    recipe: str
    epochs: str
    last: str  # validation top-1 / top-5 error
    best: str
    loss: str  # of training
    rate: str
    hours: str
    views: int
    val_pixels_id: str


def facts(run: Run, network: AlexNet) -> list[tuple[str, str]]:
    """What was trained, on what and for how long."""
    checkpoint, start = run.checkpoint, run.starts[-1] if run.starts else None
    parameters = sum(each.numel() for each in network.parameters())
    images = f"{start.train.card['samples']:,} training images of " if start else ""
    found = [
        ("folder", str(run.folder.absolute())),
        ("recipe", recipe_values.with_changes(run)),
        ("network", f"{checkpoint.recipe.network}, {parameters:,} parameters"),
        ("data", f"{images}{counted(len(checkpoint.data.wnids), 'class')}"),
        ("trained", f"{_trained(run)}, at most {counted(checkpoint.recipe.epochs, 'epoch')}"),
    ]
    if run.epochs:
        found.append(("time", f"{duration(run.seconds)} of training, without validation"))
    if start:
        others = f" in {start.processes} processes" if start.processes > 1 else ""
        found.append(("on", f"{_device(start.device, start.cpu)}{others}"))
    return found


def results(run: Run, val: Dataset | Missing, judgement: Judgement | Missing) -> list[Result]:
    """This checkpoint, the run's last and best epochs, what is published, and chance."""
    rows, classes, recipe = [], len(run.checkpoint.data.wnids), run.checkpoint.recipe
    if isinstance(judgement, Judgement) and isinstance(val, Dataset):
        data = f"{val.path.name}, {counted(len(val), 'image')}"
        for count, score in judgement.scores.items():
            at_random = count == 1 and judgement.seen.random is not None
            rows.append(
                Result(
                    f"this run, {_trained(run)}",
                    data,
                    "1, at random" if at_random else str(count),
                    f"{score.top1_error:.2%}",
                    f"{score.top5_error:.2%}",
                    f"{score.loss:.4f}",
                )
            )
    if run.epochs:
        last, views = run.epochs[-1], str(recipe.val_views)
        if "val_loss" in last:
            best = f" and the best by {recipe.watch}" if run.best is last else ""
            what = f"as validated after epoch {last['epoch']}, the last{best}"
            rows.append(_of_row(what, WHILE, views, last, "val_"))
        if run.best is not None and run.best is not last and "val_loss" in run.best:
            what = f"as validated after epoch {run.best['epoch']}, the best by {recipe.watch}"
            rows.append(_of_row(what, WHILE, views, run.best, "val_"))
        what = f"while it trained, epoch {last['epoch']}"
        rows.append(_of_row(what, "training data, augmented", "1, at random", last, ""))
    for known in published.of_classes(run.checkpoint.data.wnids) or (published.PAPER,):
        top5 = f"{known.top5:g}%" if known.top5 is not None else NONE
        what, seen = f"published: {known.what} (recipe {known.recipe})", str(known.views or NONE)
        rows.append(Result(what, known.data, seen, f"{known.top1:g}%", top5, own=False))
    five = max(1 - 5 / classes, 0.0)
    chance = f"chance, {counted(classes, 'class')}"
    rows.append(Result(chance, "any", NONE, f"{1 - 1 / classes:.2%}", f"{five:.2%}", own=False))
    return rows


def compared(runs: Sequence[Run]) -> list[Compared]:
    return [_compared(run) for run in runs]


def _compared(run: Run) -> Compared:
    last = run.epochs[-1] if run.epochs else {}
    images = sum(float(row["images_per_s"]) * float(row["seconds"]) for row in run.epochs)
    return Compared(
        label=run.label,
        recipe=run.checkpoint.recipe.name,
        epochs=f"{run.checkpoint.epoch} of {run.checkpoint.recipe.epochs}",
        last=_errors(last),
        best=f"{_errors(run.best)}, epoch {run.best['epoch']}" if run.best else NONE,
        loss=f"{last['loss']:.3f}" if last.get("loss") is not None else NONE,
        rate=f"{images / run.seconds:,.0f}" if run.seconds else NONE,
        hours=duration(run.seconds) if run.seconds else NONE,
        views=run.checkpoint.recipe.val_views,
        val_pixels_id=run.checkpoint.val_pixels_id,
    )


def _errors(row: Row) -> str:
    if row.get("val_top1_error") is None:
        return NONE
    return f"{row['val_top1_error']:.2%} / {row['val_top5_error']:.2%}"


def _of_row(what: str, data: str, views: str, row: Row, prefix: str) -> Result:
    loss = row[f"{prefix}loss"]
    return Result(
        what,
        data,
        views,
        f"{row[f'{prefix}top1_error']:.2%}",
        f"{row[f'{prefix}top5_error']:.2%}",
        NONE if loss is None else f"{loss:.4f}",
    )


def _trained(run: Run) -> str:
    checkpoint = run.checkpoint
    within = f" and {counted(checkpoint.epoch_step, 'step')}" if checkpoint.epoch_step else ""
    return f"{run.file.name} after {counted(checkpoint.epoch, 'epoch')}{within}"


def _device(device: str, cpu: str) -> str:
    return cpu if device == "cpu" else device
