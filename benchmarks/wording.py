"""Results of benchmarks/results/ in words: rates, ratios, where they were measured, tables."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prep.program import counted

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
WIDTH = 100
Report = dict[str, Any]


def report(name: str) -> Report:
    found: Report = json.loads((ROOT / RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def images(rate: Report | None) -> str:
    return "" if rate is None else f"{rate['median']:,.0f} images/s"


def times(ratio: Report) -> str:
    """The median, and how far rounds were apart."""
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def minutes(samples: int, rate: float) -> str:
    return f"{samples / rate / 60:.0f} min"


def made_on(found: Report) -> str:
    machine = found["machine"]
    cpu = re.sub(r"\(R\)| Processor", "", machine["cpu"])
    return f"{cpu}, {counted(machine['cores'], 'core')}, {machine['date']}"


def link(name: str, text: str = "data") -> str:
    return f"[{text}]({RESULTS}/{name}.json)"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(cells)} |" for cells in lines]


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
