"""docs/trained.png: the errors of the runs in benchmarks/results/train-*.json, epoch by epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmarks.wording import RESULTS, ROOT

PICTURE = ROOT / "docs" / "trained.png"
COLUMNS = 2
DPI = 110  # dots an inch
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple")


def panels() -> dict[str, dict[str, Any]]:
    """Of each results file its title, and its runs."""
    found = {}
    for path in sorted((ROOT / RESULTS).glob("train-*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        found[path.stem.removeprefix("train-")] = report["runs"]
    return found


def draw() -> Figure:
    """A panel a results file: top-1 error of validation, dashed of training, over epochs."""
    shown = panels()
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(4.6 * COLUMNS, 3.1 * rows), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axis, (title, runs) in zip(axes, shown.items(), strict=False):
        axis.set_title(title, fontsize=10)
        for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
            epochs = [row["epoch"] for row in run["epochs"]]
            for figure_of, style, label in (
                ("val_top1_error", "-", name),
                ("top1_error", "--", None),
            ):
                errors = [row[figure_of] for row in run["epochs"]]
                axis.plot(epochs, errors, style, color=colour, label=label, linewidth=1.4)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("epochs")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    for axis in list(figure.axes)[len(shown) :]:
        axis.remove()
    return figure


def save(path: Path = PICTURE) -> None:
    draw().savefig(path, format="png", metadata={"Software": None})
