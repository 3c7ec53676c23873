"""A recipe's values with the source of each, from the comments of its file; where runs differ."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from prep.program import UserError
from train.recipe import Recipe, recipe_from_values, recipe_names, recipe_text
from train.report.gather import Run

IN_WORDS = ("name", "about")  # no values that anything is trained by


@dataclasses.dataclass(frozen=True)
class Value:
    """One row; `instead_of` is the file's value, where the run has another one."""

    key: str
    value: str
    source: str
    instead_of: str | None = None


@dataclasses.dataclass(frozen=True)
class Sourced:
    """A recipe as the run has it. `head`: the file's first comment, which explains its sources."""

    values: list[Value]
    head: str
    known: bool  # false: the file is not known, so there are no sources


def sourced(run: Run) -> Sourced:
    text, written = _file(run), original(run)
    sources = comments(text)
    others = _shown(written) if written else {}
    values = []
    for key, value in _shown(run.checkpoint.recipe).items():
        source, other = sources.get(key, ""), others.get(key, value)
        values.append(Value(key, value, source, other if other != value else None))
    return Sourced(values, head(text), bool(text))


def original(run: Run) -> Recipe | None:
    """The recipe as its file has it; None where that is not known or cannot be read any more."""
    text = _file(run)
    try:
        return recipe_from_values(tomllib.loads(text), "of the run") if text else None
    except (tomllib.TOMLDecodeError, UserError):
        return None


def changed(run: Run) -> dict[str, Any]:
    """The run's values that are not those of its recipe's file; all where that is not known."""
    values, written = dataclasses.asdict(run.checkpoint.recipe), original(run)
    others = dataclasses.asdict(written) if written else {}
    return {
        key: value for key, value in values.items() if key not in others or others[key] != value
    }


def with_changes(run: Run) -> str:
    """A recipe's name with what it is about, or with the values that the run has in their place."""
    recipe, values = run.checkpoint.recipe, changed(run) if original(run) else {}
    told = [f"{key} = {_text(value)}" for key, value in values.items() if key not in IN_WORDS]
    return f"{recipe.name}, with {', '.join(told)}" if told else f"{recipe.name}: {recipe.about}"


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Keys in which the recipes of several runs differ, with each one's value."""
    shown = [_shown(run.checkpoint.recipe) for run in runs]
    rows = [(key, [each[key] for each in shown]) for key in shown[0]]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def comments(text: str) -> dict[str, str]:
    """What is written behind each key's value, and on the comment lines that go on from it."""
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if named := re.match(r"(\w+)\s*=", line):
            key = named[1]
            found[key] = _behind(line[named.end() :])
        elif key and (more := re.match(r"\s+#\s*(.*)", line)):
            found[key] = f"{found[key]} {more[1]}".strip()
        else:
            key = ""
    return found


def head(text: str) -> str:
    """The comment that a file begins with, without its marks."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def _behind(value: str) -> str:
    """The comment behind a value that has no quote or # of its own but around a string."""
    found = re.match(r"""\s*(?:"[^"]*"|'[^']*'|[^#"'])*#\s*(.*)""", value)
    return found[1] if found else ""


def _file(run: Run) -> str:
    """The text of the recipe's file; "" where it is not known."""
    text, name = run.starts[-1].recipe_text if run.starts else "", run.checkpoint.recipe.name
    if not text and name in recipe_names():  # a run of an older program
        return recipe_text(name)
    return text


def _shown(recipe: Recipe) -> dict[str, str]:
    return {key: _text(value) for key, value in dataclasses.asdict(recipe).items()}


def _text(value: Any) -> str:
    """A value much as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(part) for part in value) + "]"
    return str(value)
