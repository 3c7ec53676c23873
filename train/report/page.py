"""The page: templates filled, every name escaped, into one file that asks for no other.

Whatever is a string, not markup of this program, is escaped as HTML, and characters that would
turn a line or end it are shown as escapes: names of classes and files are only ever text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from prep.files import whole_file
from prep.program import visible
from train import __version__


def write(values: dict[str, Any], names: Sequence[str], path: Path) -> None:
    """values: of train.report.sections; names: of the classes in label order."""
    text = (
        environment().get_template("page.html").render(**values, names=names, version=__version__)
    )
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def environment() -> jinja2.Environment:
    """What fills templates/."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("train.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters["percent"] = lambda share: f"{share:.1%}"
    return made


def _shown(value: Any) -> Any:
    """What a template's expression becomes before it is escaped."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)
