"""What each section of a report shows, in the order of the page; a Missing where data is wanting.

With several runs the table and the curves are of all, the rest is of the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from prep import handover
from prep.program import UserError
from train import by_class
from train import checkpoint as checkpoints
from train.dataset import Dataset
from train.evaluate import views_of
from train.networks.layers import AlexNet
from train.report import (
    curves,
    drawing,
    headline,
    judging,
    kernels,
    neighbours,
    pictures,
    published,
    recipe_values,
)
from train.report.data import Missing, read_pictures, spread, training_data, validation_data
from train.report.gather import Run, looks_at_validation
from train.report.judging import Judgement, Prediction
from train.screen import Screen

SAMPLES = 40  # training images that are shown
PREDICTIONS = 10  # validation images with their most probable classes
QUERIES = 6  # validation images whose neighbours are sought; paper, figure 4: five
CLASSES = 40  # as many have a row each; of more, the hardest and the easiest HALF
HALF = 15
MATRIX = 30  # classes of which each with each has a cell; more are too many to read
ENLARGED = 4  # times: how conv1's kernels are shown
STARTS = 10  # of a run, the last ones


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one `train report` was asked for."""

    beton: Path | None
    val_beton: Path | None
    views: int
    smooth: int  # epochs of a moving average; 1: none
    device: torch.device
    threads: int


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class in the validation data; errors are fractions."""

    label: int
    samples: int
    top1_error: float
    top5_error: float


def sections(runs: Sequence[Run], settings: Settings, screen: Screen) -> dict[str, Any]:
    """The values that templates/page.html names. Raises UserError as the stages do."""
    run = runs[0]
    train = training_data(run, settings.beton)
    val = validation_data(run, settings.val_beton)
    network = checkpoints.trained_network(run.checkpoint, run.file).to(settings.device)
    judgement: Judgement | Missing = (
        val if isinstance(val, Missing) else _judged(network, run, val, settings, screen)
    )
    found = {
        "run": run,
        "runs": runs,
        "facts": headline.facts(run, network),
        "published": bool(published.of_classes(run.checkpoint.data.wnids)),
        "other_validation": isinstance(val, Dataset)
        and val.card.pixels_id != run.checkpoint.val_pixels_id,
        "validated_on_training": run.checkpoint.val_pixels_id == run.checkpoint.data.pixels_id,
        "looks": looks_at_validation(run),
        "results": headline.results(run, val, judgement),
        "compared": headline.compared(runs),
        "learning": curves.learning(runs, settings.smooth),
        "drops": curves.said_of_drops(runs),
        "thin": curves.has_thin_line(runs),
        "smooth": settings.smooth,
        "speed": curves.speed(runs),
        "kernels": [
            (pictures.as_png(each), each.shape[1] * ENLARGED) for each in kernels.by_tower(network)
        ],
        "train_samples": _samples(train),
        "mean": pictures.mean_picture(run.checkpoint.data.mean_image.numpy()),
        "axes": _axes(train),
        "recipe": recipe_values.sourced(run),
        "differences": recipe_values.differences(runs),
        "train": train,
        "val": val,
        "starts": run.starts[-STARTS:],
    }
    return found | _of_validation(network, run, train, val, judgement, settings, screen)


def _of_validation(
    network: AlexNet,
    run: Run,
    train: Dataset | Missing,
    val: Dataset | Missing,
    judgement: Judgement | Missing,
    settings: Settings,
    screen: Screen,
) -> dict[str, Any]:
    """The sections that show what the network makes of validation images."""
    if isinstance(val, Missing) or isinstance(judgement, Missing):
        names = ("predictions", "neighbours", "classes", "confusions")
        return dict.fromkeys(names, val)
    classes = len(run.checkpoint.data.wnids)
    shown = judging.predictions(network, val, spread(val.labels, PREDICTIONS), judgement.seen)
    near: Any = train
    if isinstance(train, Dataset):
        near = _neighbours(network, run, shown[:QUERIES], train, settings, screen)
    rows, curve = _classes(judgement, classes)
    return {
        "predictions": [(pictures.thumbnail(each.pixels), each) for each in shown],
        "predicted_by": judgement.seen.count,
        "neighbours": near,
        "looked_through": 0
        if isinstance(train, Missing)
        else len(neighbours.looked_through(train)),
        "classes": rows,
        "class_curve": curve,
        "matrix": by_class.matrix(judgement.judged, classes) if classes <= MATRIX else [],
        "confusions": [
            (
                each,
                *([pictures.thumbnail(p) for p in part] for part in (each.confused, each.typical)),
            )
            for each in judging.confusions(judgement.judged, val)
        ],
    }


def _judged(
    network: AlexNet, run: Run, val: Dataset, settings: Settings, screen: Screen
) -> Judgement:
    checkpoint = run.checkpoint
    seen = views_of(checkpoint.recipe, checkpoint.data, settings.device, settings.views)
    return judging.judge(network, val, seen, settings.threads, screen)


def _samples(train: Dataset | Missing) -> list[tuple[str, int]] | Missing:
    """Pictures and their labels, sorted by label."""
    if isinstance(train, Missing):
        return train
    chosen = sorted(spread(train.labels, SAMPLES), key=lambda sample: int(train.labels[sample]))
    found = read_pictures(train, chosen)
    return [
        (pictures.thumbnail(pixels), int(train.labels[sample]))
        for sample, pixels in zip(chosen, found, strict=True)
    ]


def _neighbours(
    network: AlexNet,
    run: Run,
    queries: Sequence[Prediction],
    train: Dataset,
    settings: Settings,
    screen: Screen,
) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Of each query its picture and label, and those of its neighbours, the nearest first."""
    checkpoint = run.checkpoint
    centre = views_of(checkpoint.recipe, checkpoint.data, settings.device, 1)
    centre = dataclasses.replace(centre, random=None)
    found = neighbours.nearest(network, [each.pixels for each in queries], train, centre, screen)
    rows = []
    for query, samples in zip(queries, found, strict=True):
        near = [
            (pictures.thumbnail(pixels), int(train.labels[sample]))
            for sample, pixels in zip(samples, read_pictures(train, samples), strict=True)
        ]
        rows.append((pictures.thumbnail(query.pixels), query.label, near))
    return rows


def _classes(
    judgement: Judgement, classes: int
) -> tuple[list[list[ClassRow]], drawing.Curve | None]:
    """Hardest first: all in one table, or two tables, of the hardest and the easiest, and a curve.

    Classes without samples are left out.
    """
    rows = [
        ClassRow(label, *figures[:3])
        for label, figures in enumerate(by_class.figures(judgement.judged, classes))
        if figures[0]
    ]
    rows.sort(key=lambda row: (-row.top1_error, row.label))
    if len(rows) <= CLASSES:
        return [rows], None
    curve = curves.errors_by_class([row.top1_error for row in rows])
    return [rows[:HALF], rows[-HALF:]], curve


def _axes(train: Dataset | Missing) -> list[tuple[str, list[float], float]] | Missing:
    """Of each principal axis a ramp of colours, its direction and its standard deviation."""
    if isinstance(train, Missing):
        return train
    path = handover.stats_path(train.path)
    try:
        statistics = handover.read_statistics_of(train.card, path)
    except (UserError, OSError) as error:
        return Missing(f"The statistics beside the beton cannot be read ({error}).")
    return [
        (
            pictures.ramp(statistics, axis),
            statistics.eigenvectors[:, axis].tolist(),
            float(statistics.standard_deviations[axis]),
        )
        for axis in range(3)
    ]
