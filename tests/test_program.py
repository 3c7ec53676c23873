"""The edge of the programs: exit codes, one-line failures, checked options."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ODD_NAMES

from prep.program import ToldExit, UserError, first_line, png_path, rate, run_program, say, visible


def failing(error: BaseException) -> Callable[[list[str]], object]:
    def program(_: list[str]) -> object:
        raise error

    return program


def exit_code(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[list[str]], object], *arguments: str
) -> object:
    monkeypatch.setattr(sys, "argv", ["prep", *arguments])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            run_program("prep", program)
    finally:
        signal.signal(signal.SIGTERM, before)
    return caught.value.code


def test_a_program_that_ends_well_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    assert exit_code(monkeypatch, seen.extend, "a", "--debug", "b") == 0
    assert seen == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("7 is more than 3; say 2"), "prep: 7 is more than 3; say 2"),
        (UserError("two\nlines"), "prep: two lines"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/f"),
            "prep: out/f: No space left on device; make room, then run the same command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "f"),
            "prep: f: Permission denied; give a place that this user may read and write",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "f"),
            "prep: f: Read-only file system; give a place that this user may read and write",
        ),
        (
            OSError(errno.EIO, "Input/output error", "f"),
            "prep: f: Input/output error; run again with --debug to see where it happened",
        ),
        (OSError("odd"), "prep: odd; run again with --debug to see where it happened"),
        (
            ZeroDivisionError("division by zero"),
            "prep: ZeroDivisionError: division by zero; a fault of this program: run again with "
            "--debug and report what it says",
        ),
        (
            MemoryError(),
            "prep: MemoryError; a fault of this program: run again with --debug and report what "
            "it says",
        ),
    ],
)
def test_a_failure_exits_1_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    line: str,
) -> None:
    assert exit_code(monkeypatch, failing(error)) == 1
    assert capsys.readouterr().err == line + "\n"


def test_sigterm_ends_a_program_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def program(_: list[str]) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    assert exit_code(monkeypatch, program) == 143
    assert cleaned
    line = "prep: ended by SIGTERM; the same command carries on or starts anew\n"
    assert capsys.readouterr().err == line


def test_an_ending_that_has_been_told_is_not_told_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, failing(SystemExit(130))) == 130
    assert "interrupted" in capsys.readouterr().err
    assert exit_code(monkeypatch, failing(ToldExit(130))) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [UserError("no"), OSError("no"), ValueError("no")])
def test_debug_lets_the_exception_through(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(sys, "argv", ["prep", "--debug"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(type(error), match="no"):
        run_program("prep", failing(error))


def test_a_name_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ODD_NAMES:
        say(name)
        shown = capsys.readouterr().out
        assert shown.endswith("\n")
        assert shown[:-1] == visible(name)
        assert not set(shown[:-1]) & {*map(chr, range(32)), "\x7f", "\x85", "\u2028", "\u202e"}
    assert visible("\x1b[31m\n\udcff\u202e") == r"\x1b[31m\n\udcff\u202e"
    for name in (
        "n01440764 tench",
        "Grünfink\u00a0",
        "\N{GRINNING FACE}\u200d",
        "שלום",
        "[a] :b: $c$",
    ):
        assert visible(name) == name


def test_a_failure_s_names_steer_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, failing(UserError("\x1b[2Jx is no\nfolder"))) == 1
    assert capsys.readouterr().err == "prep: \\x1b[2Jx is no folder\n"


@pytest.mark.parametrize(
    ("images", "seconds", "said"),
    [(3057, 1.0, "3,057 images/s"), (10, 1.0, "10 images/s"), (1, 3.0, "0.3 images/s")],
)
def test_a_slow_rate_has_a_decimal(images: int, seconds: float, said: str) -> None:
    assert rate(images, seconds) == said


def test_a_png_option_takes_only_a_png_in_a_folder_that_exists(tmp_path: Path) -> None:
    assert png_path(None) is None
    assert png_path(tmp_path / "x.PNG") == tmp_path / "x.PNG"
    with pytest.raises(UserError, match=r"should end in \.png"):
        png_path(tmp_path / "train.beton")
    with pytest.raises(UserError, match="absent is not a folder"):
        png_path(tmp_path / "absent" / "x.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: that is a folder"):
        png_path(tmp_path / "folder.png")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\ntwo"), "ValueError"),
        (ValueError(), "ValueError"),
        (KeyError(101), "KeyError 101"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("arguments", "lines"), [(["recipes"], 0), (["eval", "nothing", "--beton", "x", "--json"], 1)]
)
def test_a_reader_that_has_gone_is_no_fault(arguments: list[str], lines: int) -> None:
    script = "import time; time.sleep(0.5); from train.cli import main; main()"
    program = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    said = program.stderr.read().decode()
    program.stderr.close()
    assert program.wait() == 1
    assert len(said.splitlines()) == lines, said
