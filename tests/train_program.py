"""Runs the `train` program in the tests' own process."""

from __future__ import annotations

import sys

import pytest

from train import cli

TINY = ["--recipe", "demo", "--set", "width=0.07", "--set", "batch=8", "--set", "epochs=2"]
ONE_THREAD = ["--workers", "1", "--device", "cpu"]


def call(*arguments: object) -> int:
    """Run the program; gives its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a failing command prints, without the program's name."""
    capsys.readouterr()
    assert call(*arguments) == 1
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("train: ")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    return line.removeprefix("train: ")
