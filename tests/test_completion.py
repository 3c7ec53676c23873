"""Shell completion: commands, options and their words, by the protocol that shells use, at once."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prep.manifest import names
from train.recipe import recipe_names

PROGRAM = """#!{python}
from {name}.cli import main
main()
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `prep` and `train`, as an installation has them."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("prep", "train"):
        path = folder / name
        path.write_text(PROGRAM.format(python=sys.executable, name=name))
        path.chmod(0o755)
    return folder


def environment(programs: Path) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return os.environ | {"PYTHONPATH": root, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def completed(programs: Path, line: str) -> list[str]:
    """What bash is told for the last word of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [words[0]],
        env=environment(programs)
        | {
            f"_{words[0].upper()}_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prep re", ["resize", "report"]),
        ("prep resize SRC OUT --backend ", ["turbo", "pillow", "opencv-2012"]),
        ("prep resize SRC OUT --lay", ["--layout"]),
        ("prep check SRC --manifest ", names()),
        ("prep verify ", []),  # files, which the shell knows itself
        ("train e", ["eval", "export"]),
        ("train run --recipe ", recipe_names()),
        ("train run --recipe te", []),
        ("train recipes p", [name for name in recipe_names() if name.startswith("p")]),
        ("train run --set learning", ["learning_rate="]),
        ("train eval RUN --views ", ["1", "5", "10", "all"]),
    ],
)
def test_words_are_completed(line: str, words: list[str], programs: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert completed(programs, line) == words
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # 0.5 s on an idle machine; twice that here, where others may be at work.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_bash_is_taught_and_asks(programs: Path, tmp_path: Path) -> None:
    """--install-completion, then a new shell."""
    home = {"HOME": str(tmp_path)}
    shell("bash", "prep --install-completion; true", programs, home)
    asked = """
. ~/.bashrc
COMP_WORDS=(prep resize SRC OUT --fit '') COMP_CWORD=5
_prep_completion prep
echo "${COMPREPLY[@]}"
"""
    assert shell("bash", asked, programs, home).stdout.split() == ["crop", "squash"]


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells_are_answered(name: str, programs: Path) -> None:
    """What their scripts ask; the scripts themselves are read by the shells that are installed."""
    question = {
        "_PREP_COMPLETE": f"complete_{name}",
        "_TYPER_COMPLETE_ARGS": "prep resize SRC OUT --fit ",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    answer = shell("sh", "prep", programs, question).stdout
    assert "crop" in answer
    assert "squash" in answer
    script = shell("sh", "prep", programs, {"_PREP_COMPLETE": f"source_{name}"}).stdout
    assert f"complete_{name}" in script
    if shutil.which(name):
        assert shell(name, f"exec {name} -n", programs, {}, stdin=script).stderr == ""


def shell(
    name: str, script: str, programs: Path, variables: dict[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [name, "-c", script],
        env=environment(programs) | variables,
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    )
