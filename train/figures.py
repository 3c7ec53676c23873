"""Pictures of results: predictions with their most probable classes, as the paper's figure 4."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prep.files import whole_file
from prep.program import visible
from train.classify import Prediction

COLUMNS = 5
LETTERS = 80  # of a name; more are wider than TEXT_WIDTH in any font
TEXT_WIDTH = 2.35  # inches, of a column that is COLUMN_WIDTH wide with its margins
COLUMN_WIDTH = 2.6  # inches
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(predictions) // COLUMNS)
    columns = min(COLUMNS, len(predictions))
    figure = Figure(
        figsize=(COLUMN_WIDTH * columns, ROW_HEIGHT * rows), dpi=DPI, layout="constrained"
    )
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
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
        title = _short(truth or prediction.path.name, "", 9, renderer)
        picture.set_title(title, fontsize=9, parse_math=False)
        heights = range(len(prediction.names), 0, -1)
        colours = [
            ("tab:green" if name == truth else "tab:red" if truth and rank == 0 else "tab:blue")
            for rank, name in enumerate(prediction.names)
        ]
        bars.barh(heights, prediction.probabilities, color=colours, alpha=0.55, height=0.8)
        for height, name, probability in zip(
            heights, prediction.names, prediction.probabilities, strict=True
        ):
            text = _short(name, f"  {probability:.0%}", 8, renderer)
            shown = bars.text(0.02, height, text, va="center", fontsize=8, parse_math=False)
            shown.set_in_layout(False)  # it takes its column's width, and is not to narrow it
        bars.set_xlim(0, 1)
    with whole_file(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of no font: a box is drawn
        figure.savefig(partial, format="png", dpi=DPI)


def _short(name: str, behind: str, size: float, renderer: Any) -> str:
    """A name in one line with what stands behind it, in letters of so many points.

    Where both are wider than TEXT_WIDTH, the name ends with an ellipsis.
    """
    from matplotlib.font_manager import FontProperties

    def fits(text: str) -> bool:
        font = FontProperties(size=size)
        width, _, _ = renderer.get_text_width_height_descent(text, font, ismath=False)
        return bool(width <= TEXT_WIDTH * renderer.dpi)

    name = visible(name)
    if len(name) <= LETTERS and fits(name + behind):
        return name + behind
    cut = (f"{name[:kept].rstrip()}…{behind}" for kept in range(min(len(name), LETTERS), 0, -1))
    return next(filter(fits, cut), f"…{behind}")
