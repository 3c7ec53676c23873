"""What benchmarks report: medians with their spread, as JSON on the screen and in a file."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def tell(report: dict[str, Any], out: Path | None) -> None:
    """Print a report and, where `out` is given, write it there."""
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    print(text, end="")
    if out is not None:
        out.write_text(text, encoding="utf-8")
