"""Progress: a bar on a terminal, a line now and then elsewhere, and names as they are."""

from __future__ import annotations

import io
import time

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


@pytest.fixture
def every_5_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time between lines."""
    monkeypatch.setattr(module, "LOG_INTERVAL", 0.005)


def next_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The newest one, when there is one."""
    capsys.readouterr()
    for _ in range(1000):
        if lines := capsys.readouterr().err.splitlines():
            return lines[-1]
        time.sleep(0.01)
    pytest.fail("no line in ten seconds")


def test_nothing_to_do_has_no_bar() -> None:
    for total, shown in ((0, False), (1, True)):
        screen = io.StringIO()
        with module._bar(Console(file=screen, force_terminal=True), "resize train", total, 0.0):
            pass
        assert ("resize train" in screen.getvalue()) == shown


def test_off_a_terminal_a_line_tells_what_was_done(clock: Clock) -> None:
    report = module._LineReport("resize train", 1000, "images")
    clock.now += 30
    assert report.line() == "resize train: 0/1,000 after 30 s"
    report(300, rejected=3)
    assert report.line() == "resize train: 300/1,000, 10 images/s, 70 s left, 3 rejected"
    clock.now += 30
    report(300, 1)
    report(300)
    assert report.line() == "resize train: 900/1,000, 15 images/s, 7 s left, 4 rejected"


@pytest.mark.usefixtures("every_5_ms")
def test_lines_come_in_their_time_when_nothing_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A unit of work may take minutes; the block's end ends them."""
    with progress("resize train", 1000) as report:
        assert next_line(capsys) == "resize train: 0/1,000 after 0 s"
        report(500)
        next_line(capsys)  # may have been on its way
        assert next_line(capsys).startswith("resize train: 500/1,000, ")
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_a_short_run_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("stats", 3) as report:
        report(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("every_5_ms")
@pytest.mark.parametrize("title", ["write [red]x[/].beton", "write [/y].beton", "x" * 200])
def test_a_name_is_shown_as_it_is_in_one_line(
    capsys: pytest.CaptureFixture[str], title: str
) -> None:
    with progress(title, 10) as report:
        report(5)
        assert next_line(capsys).startswith(f"{title}: 5/10, ")


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
