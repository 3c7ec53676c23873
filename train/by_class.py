"""How each class fared in an evaluation: three CSV files, UTF-8, with a row of names at their head.

per_class.csv   label, wnid, name, samples, top1_error, top5_error, loss; the errors are
                fractions, weighted by the samples their means are those of all samples
confusions.csv  true, predicted, count, true_name, predicted_name: wnids of samples whose most
                probable class is a wrong one, most frequent first
categories.csv  label, wnid, name
"""

from __future__ import annotations

import collections
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from prep.files import whole_file
from train.evaluate import Judged

PER_CLASS, CONFUSIONS, CATEGORIES = "per_class.csv", "confusions.csv", "categories.csv"

Row = Sequence[object]


def write(folder: Path, judged: Judged, wnids: Sequence[str], names: Sequence[str]) -> None:
    """Write the three files; wnids and names are in label order."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = [(label, wnid, names[label]) for label, wnid in enumerate(wnids)]
    by_label = figures(judged, len(classes))
    _write(
        folder / PER_CLASS,
        ("label", "wnid", "name", "samples", "top1_error", "top5_error", "loss"),
        ((*known, *found) for known, found in zip(classes, by_label, strict=True)),
    )
    _write(
        folder / CONFUSIONS,
        ("true", "predicted", "count", "true_name", "predicted_name"),
        (
            (wnids[true], wnids[predicted], count, names[true], names[predicted])
            for true, predicted, count in confusions(judged)
        ),
    )
    _write(folder / CATEGORIES, ("label", "wnid", "name"), classes)


def confusions(judged: Judged) -> list[tuple[int, int, int]]:
    """(label, wrong class that was the most probable, samples), most frequent first."""
    wrong = judged.top1_wrong
    pairs = zip(judged.labels[wrong].tolist(), judged.best[wrong].tolist(), strict=True)
    counts = sorted(collections.Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [(true, predicted, count) for (true, predicted), count in counts]


def matrix(judged: Judged, classes: int) -> list[list[int]]:
    """Samples [true class][most probable class]."""
    cells = torch.bincount(judged.labels * classes + judged.best, minlength=classes * classes)
    found: list[list[int]] = cells.reshape(classes, classes).tolist()
    return found


def figures(judged: Judged, classes: int) -> list[tuple[Any, ...]]:
    """Samples, top-1 error, top-5 error and mean loss of each class; no errors without samples."""
    samples = torch.bincount(judged.labels, minlength=classes).tolist()
    sums = [
        torch.bincount(judged.labels, column.double(), classes).tolist()
        for column in (judged.top1_wrong, judged.top5_wrong, judged.loss)
    ]
    return [
        (count, *(total / count if count else "" for total in totals))
        for count, *totals in zip(samples, *sums, strict=True)
    ]


def _write(path: Path, head: Row, rows: Iterable[Row]) -> None:
    # surrogateescape: names of folders that are no UTF-8 keep their bytes.
    with (
        whole_file(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
