"""What holds over the whole `train` half: its imports, its module names, its recipes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import prep.cli
import train
import train.cli
from train.recipe import load_recipe, recipe_names, recipe_text

FOLDER = Path(train.__file__).parent
MODULES = sorted(FOLDER.rglob("*.py"))
ALLOWED = {
    "prep.handover",
    "prep.images",
    "prep.files",
    "prep.locks",
    "prep.program",
    "prep.code_version",
}


def imported(tree: ast.AST) -> set[str]:
    """Every module that the code names in an import, `from prep import images` as prep.images."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a module comes from"
            module = node.module or ""
            if module == "prep":
                found |= {f"prep.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


def test_the_imports_of_code_are_found() -> None:
    code = (
        "import prep.write\nfrom prep import images, stats\ndef f():\n from prep.beton import X\n"
    )
    assert imported(ast.parse(code)) == {"prep.write", "prep.images", "prep.stats", "prep.beton"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_train_imports_of_prep_only_the_hand_over_images_and_its_edge(path: Path) -> None:
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    of_prep = {name for name in names if name.split(".")[0] == "prep"}
    assert of_prep <= ALLOWED


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_opens_with_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_only_cli_and_loop_compose_stages() -> None:
    """The others know at most the stage before them; cli and loop are imported by none but cli."""
    for path in MODULES:
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        if path.stem != "cli":
            assert not names & {"train.cli", "train.loop"}, path.stem


def test_modules_are_called_after_their_stage() -> None:
    root = FOLDER.parent
    names = {path.stem for folder in ("prep", "train") for path in (root / folder).rglob("*.py")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_there_are_recipes_and_all_are_files_of_their_name() -> None:
    assert {"paper", "demo"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_under_its_own_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about


@pytest.mark.parametrize("name", recipe_names())
def test_every_value_of_a_recipe_cites_its_source(name: str) -> None:
    for line in recipe_text(name).splitlines():
        key = re.match(r"(\w+)\s*=", line)
        if key and key[1] not in ("name", "about"):
            # In words, or by the letter of a source that the file's head explains.
            assert re.search(r"[^\"]#\s*([A-Z]|\S.{2,})$", line), f"{name}.toml: {line}"


@pytest.mark.parametrize("name", recipe_names())
def test_the_commands_at_a_recipes_head_exist(name: str) -> None:
    """Each names a command of prep or train and options that it has; the last run is its own."""
    groups = {"prep": get_command(prep.cli.app), "train": get_command(train.cli.app)}
    lines = re.findall(r"^#   (\S.*)$", recipe_text(name), re.MULTILINE)
    assert lines
    for words in (part.split() for line in lines for part in line.split(" && ")):
        if words[0] == "make":
            continue
        group = groups[words[0]]
        assert isinstance(group, TyperGroup)
        options = {option for known in group.commands[words[1]].params for option in known.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
        if "--recipe" in words:
            assert words[words.index("--recipe") + 1] == name
