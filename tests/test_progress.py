"""Progress: a bar on a terminal, a line now and then elsewhere, and names as they are."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from prep import progress as module
from prep.progress import progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_off_a_terminal_there_is_one_line_every_30_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("resize train", 1000) as report:
        clock.now += 29
        report(100)
        assert capsys.readouterr().err == ""
        clock.now += 1
        report(200, rejected=3)
        assert capsys.readouterr().err == (
            "resize train: 300/1,000, 10 images/s, 70 s left, 3 rejected\n"
        )
        clock.now += 20
        report(300, 1)
        assert capsys.readouterr().err == ""
        clock.now += 10
        report(300)
    assert capsys.readouterr().err == "resize train: 900/1,000, 15 images/s, 7 s left, 4 rejected\n"


def test_a_short_run_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("stats", 3) as report:
        report(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("title", ["write [red]x[/].beton", "write [/y].beton", "x" * 200])
def test_a_name_is_shown_as_it_is_in_one_line(
    clock: Clock, capsys: pytest.CaptureFixture[str], title: str
) -> None:
    with progress(title, 10) as report:
        clock.now += 31
        report(5)
    assert capsys.readouterr().err.startswith(f"{title}: 5/10, ")


@pytest.mark.parametrize("title", ["stats", "write [/y].beton"])
def test_on_a_terminal_there_is_a_bar(title: str) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150, color_system=None)
    with module._bar(console, title, 200, 0.0) as report:
        report(50)
        report(150, rejected=2)
    shown = screen.getvalue()
    assert title in shown
    assert "200/200" in shown
    assert "/s 0:00:00 left 2 rejected" in shown


@pytest.mark.parametrize("total", [1_281_167, None])
def test_the_bar_fits_a_narrow_terminal(total: int | None) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with module._bar(console, "resize train", total, 0.0) as report:
        report(1_000_000, rejected=12_000)
    last = next(line for line in reversed(screen.getvalue().splitlines()) if "/s" in line)
    assert "1,000,000" in last
    assert "…" not in screen.getvalue()
    assert "12,000 rejected" in last
    assert ("left" in last) == (total is not None)


def test_work_that_ends_soon_has_no_bar(clock: Clock) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with module._bar(console, "list train", None, module.SOON) as report:
        report(5)
        clock.now += 1.9
        report(5)
        assert screen.getvalue() == ""
        clock.now += 0.2
        report(5)
    assert "list train" in screen.getvalue()


def test_nothing_done_in_30_seconds_is_a_line_too(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("md5 a.tar", 10, "MB") as report:
        clock.now += 31
        report(0)
    assert capsys.readouterr().err == "md5 a.tar: 0/10, 0.0 MB/s, 310 s left\n"
