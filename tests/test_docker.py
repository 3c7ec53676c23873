"""What the images install is what the lock says, and enough for the program they are of."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(lock: Path) -> set[tuple[str, str, str]]:
    """Package, version and hashes of every line; of another Python, a package has another line."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    found = set()
    for line in text.splitlines():
        name, version = re.match(r"([\w.-]+)==([\w.+]+)", line).groups()  # type: ignore[union-attr]
        found.add((name, version, " ".join(sorted(re.findall("sha256:[0-9a-f]+", line)))))
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line).group() for line in requirements}  # type: ignore[union-attr]


@pytest.mark.parametrize("lock", ["prep", "train"])
def test_an_image_installs_what_is_locked(lock: str) -> None:
    whole, part = pins(ROOT / "requirements.lock"), pins(ROOT / "docker" / f"{lock}.lock")
    assert part <= whole
    wanted = names(PROJECT["dependency-groups"]["prep"] if lock == "prep" else dependencies())
    assert {name for name, _, _ in part} >= wanted - {"ffcv"}
    assert "ffcv" not in {name for name, _, _ in part}


def dependencies() -> list[str]:
    listed: list[str] = PROJECT["project"]["dependencies"]
    return listed


def test_prep_s_image_has_all_that_prep_imports() -> None:
    """By the distributions that hold the modules; what is missing is an option of prep's."""
    group = names(PROJECT["dependency-groups"]["prep"])
    of_module = metadata.packages_distributions()
    used: set[str] = set()
    for path in (ROOT / "prep").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add((node.module or "").split(".")[0])
    others = used - set(sys.stdlib_module_names) - {"prep", "data_manifests"}
    found = {of_module[module][0].lower().replace("_", "-") for module in others}
    assert found <= group
    assert group <= names(dependencies()) | {"distributed"}
