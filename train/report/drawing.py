"""A figure of lines, as SVG that takes the colour of the text around it.

A figure has lines, and marks where the learning rate was lowered. Names of runs and series are not
in it but in a legend of the page's own, so that nothing that somebody named is ever in the SVG.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# Between light and dark, so that they are seen on white and on black.
COLOURS = ("#2f7fd0", "#d4691e", "#2d9150", "#b94fa0", "#8b6fd6", "#8a8420")
INK = "#010203"  # stands for the text's colour
POINTS = 400  # of a line; longer ones are thinned by means of neighbours
LEAST = 0.001  # at an axis of shares' end; figures of a smaller one have no room beside it

Points = tuple[list[float], list[float]]


@dataclasses.dataclass(frozen=True)
class Line:
    """One series. `label` is for the legend; a faint one is behind another and has none."""

    label: str
    colour: str
    points: Points
    dashed: bool = False
    faint: bool = False


@dataclasses.dataclass(frozen=True)
class Drop:
    """A mark where the rate is lowered; `rate`: from there on, where the mark tells it."""

    epoch: float
    rate: float | None
    colour: str


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure for the page."""

    title: str
    svg: Markup
    legend: list[Line]


def drawn(
    title: str,
    lines: Sequence[Line],
    *,
    drops: Sequence[Drop] = (),
    percent: bool = False,
    log: bool = False,
    across: str = "epochs",
) -> Curve:
    """drops: of one epoch, in the order of their runs."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # names of clip paths differ between a page's figures
        "text.parse_math": False,
        "font.size": 11,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(5.0, 3.3))
        axes = figure.add_axes((0.15, 0.16, 0.83, 0.8))
        for line in lines:
            xs, ys = thinned(line.points)
            axes.plot(
                xs,
                ys,
                color=line.colour,
                linestyle="--" if line.dashed else "-",
                linewidth=1.0 if line.faint else 1.8,
                alpha=0.35 if line.faint else 1.0,
                marker="o" if len(xs) == 1 else "",
                markersize=4,
            )
        for drop in drops:
            beside = [each for each in drops if each.epoch == drop.epoch]
            dots = (3.0 * beside.index(drop), (1.0, 3.0 * len(beside) - 1.0))  # in turn
            axes.axvline(drop.epoch, color=drop.colour, linestyle=dots, linewidth=1.0, alpha=0.6)
            if drop.rate is not None:
                axes.annotate(
                    f"{drop.rate:.2g}",
                    (drop.epoch, 1.0),
                    xycoords=("data", "axes fraction"),
                    xytext=(2, -2),
                    textcoords="offset points",
                    va="top",
                    fontsize=9,
                )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.15, color=INK)
        axes.set_xlabel(across)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            highest = 1.08 * max(max(line.points[1]) for line in lines) or 1.0
            axes.set_ylim(0, max(highest, LEAST) if percent else highest)
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return Curve(title, _inline(out.getvalue(), title), [line for line in lines if not line.faint])


def _inline(svg: str, title: str) -> Markup:
    """An SVG file as an element of a page: as wide as its place, ink of the text's colour."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # the same in every figure
    size = re.search(r'viewBox="[^"]*"', body)
    opening = f'<svg {size[0] if size else ""} role="img" aria-label="{title}"'
    names = 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg"'
    body = re.sub(r"<svg[^>]*>", f"{opening} {names}>", body, count=1)
    return Markup(body.replace(INK, "currentColor"))


def thinned(points: Points) -> Points:
    """At most POINTS of them: means of so many neighbours."""
    xs, ys = points
    size = -(-len(xs) // POINTS)
    if size <= 1:
        return points
    groups = [slice(start, start + size) for start in range(0, len(xs), size)]
    return [_mean(xs[group]) for group in groups], [_mean(ys[group]) for group in groups]


def smoothed(points: Points, window: int) -> Points:
    """A moving average over `window` points around each; fewer at both ends."""
    xs, ys = points
    before, after = (window - 1) // 2, window // 2
    return xs, [_mean(ys[max(at - before, 0) : at + after + 1]) for at in range(len(ys))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
