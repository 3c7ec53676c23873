"""Pictures of results: predictions with their most probable classes, as the paper's figure 4."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from prep.files import whole_file
from prep.program import visible
from train.classify import Prediction

COLUMNS = 5
LETTERS = 40  # of a name
ROW_HEIGHT = 4.0  # inches, of a picture and its bars
DPI = 110  # dots an inch
MOST = COLUMNS * int((1 << 16) / (ROW_HEIGHT * DPI))  # predictions; matplotlib draws 65,536 rows


def save_predictions(
    predictions: Sequence[Prediction], truths: Sequence[str | None], path: Path
) -> None:
    """Save a PNG: each picture over bars of its classes' probabilities.

    predictions: at most MOST. truths: the name of each picture's own class, where it is known: its
    bar is green when it is the best, the best bar is red when it is another.
    """
    from matplotlib.figure import Figure

    rows = -(-len(predictions) // COLUMNS)
    columns = min(COLUMNS, len(predictions))
    figure = Figure(figsize=(2.6 * columns, ROW_HEIGHT * rows), layout="constrained")
    axes = figure.subplots(
        2 * rows, columns, gridspec_kw={"height_ratios": [1.6, 1.0] * rows}, squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for place, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        row, column = divmod(place, COLUMNS)
        picture, bars = axes[2 * row][column], axes[2 * row + 1][column]
        picture.imshow(prediction.pixels)
        # parse_math: a name with dollar signs is no formula.
        picture.set_title(_short(truth or prediction.path.name), fontsize=9, parse_math=False)
        heights = range(len(prediction.names), 0, -1)
        colours = [
            ("tab:green" if name == truth else "tab:red" if truth and rank == 0 else "tab:blue")
            for rank, name in enumerate(prediction.names)
        ]
        bars.barh(heights, prediction.probabilities, color=colours, alpha=0.55, height=0.8)
        for height, name, probability in zip(
            heights, prediction.names, prediction.probabilities, strict=True
        ):
            text = f"{_short(name)}  {probability:.0%}"
            bars.text(0.02, height, text, va="center", fontsize=8, parse_math=False)
        bars.set_xlim(0, 1)
    with whole_file(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of no font: a box is drawn
        figure.savefig(partial, format="png", dpi=DPI)


def _short(name: str) -> str:
    """A name in one line, no longer than its picture is wide."""
    name = visible(name)
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
