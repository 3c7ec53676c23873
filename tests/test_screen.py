"""Progress on standard error: lines elsewhere, a bar on a terminal, text shown as it is."""

from __future__ import annotations

import pytest

from train import screen
from train.screen import Screen


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as shown:
        shown.line("epoch 1/2: loss 1.000")
    assert capsys.readouterr() == ("", "epoch 1/2: loss 1.000\n")


@pytest.mark.parametrize(
    "text",
    [
        "resumed from runs/[bold]x[/bold] after epoch 1",
        "runs/[/x]/last.pt",
        "a path:car:with colons",
        "word " * 60 + "end",
    ],
)
def test_a_line_is_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as shown:
        shown.line(text)
    assert capsys.readouterr().err == text + "\n"


def test_a_name_in_a_line_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as shown:
        shown.line("resumed from \x1b[31mx\n")
    assert capsys.readouterr().err == "resumed from \\x1b[31mx\\n\n"


def test_without_a_terminal_steps_show_at_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(screen.time, "monotonic", lambda: now)
    with Screen() as shown, shown.counting("epoch 1/2", 100):
        for step in range(1, 101):
            now += 1.0
            shown.step(step, "loss 1.000")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"epoch 1/2: step {step}/100, loss 1.000" for step in (30, 60, 90)]


def test_on_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Screen() as shown:
        with shown.counting("epoch 1/2", 7):
            shown.step(7, "loss 1.000")
            shown.line("a [line] that stays")
        with shown.counting("epoch 2/2", 7):
            shown.step(1, "loss 0.500")
    written = capsys.readouterr().err
    assert "epoch 1/2" in written
    assert "epoch 2/2" in written
    assert "a [line] that stays" in written


def test_following_gives_every_item_and_shows_its_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(screen.time, "monotonic", lambda: now)
    found = []
    with Screen() as shown:
        for item in shown.follow("validation", iter("abcd"), 4):
            found.append(item)
            now += 20.0
    assert found == [*"abcd"]
    assert "validation: step " in capsys.readouterr().err


def test_an_error_in_a_counted_block_passes_and_stops_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = Screen()
    with pytest.raises(KeyboardInterrupt), shown, shown.counting("epoch 1/2", 7):
        raise KeyboardInterrupt
    with shown:  # the bar can start again: it was stopped
        shown.line("again")
    assert "again" in capsys.readouterr().err
