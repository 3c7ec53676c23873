"""A progress bar on a terminal; elsewhere one line every 30 seconds."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from prep.program import rate, visible

LOG_INTERVAL = 30.0  # seconds between lines when the output is not a terminal


SOON = 2.0  # seconds: work that may be shorter has no bar until then


class Report(Protocol):
    """Called with how many images, or of another unit, were done and rejected since last time."""

    def __call__(self, done: int, rejected: int = 0) -> None: ...


@contextlib.contextmanager
def progress(
    title: str, total: int | None, unit: str = "images", after: float = 0.0
) -> Iterator[Report]:
    """Show count, images a second, time left and rejects on standard error while the block runs.

    `total` is None where nobody knows it yet; `after`: seconds until a bar is shown.
    """
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    title = visible(title)
    if console.is_terminal:
        with _bar(console, title, total, after) as report:
            yield report
    else:
        with _lines(console, title, total, unit) as report:
            yield report


@contextlib.contextmanager
def _bar(console: object, title: str, total: int | None, after: float) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    assert isinstance(console, Console)
    known = (BarColumn(bar_width=20),) if total is not None else ()
    texts = (TextColumn(f"{{task.{text}}}", markup=False) for text in ("description", "fields[so]"))
    bar = Progress(next(texts), *known, next(texts), console=console)
    of = "" if total is None else f"/{total:,}"
    task = bar.add_task(title, total=total, so=f"0{of}, starting")
    started, done_so_far, rejected_so_far = time.monotonic(), 0, 0
    shown = False

    def show_in_time() -> None:
        nonlocal shown
        if not shown and total != 0 and time.monotonic() - started >= after:
            shown = True
            bar.start()

    def report(done: int, rejected: int = 0) -> None:
        nonlocal done_so_far, rejected_so_far
        done_so_far += done
        rejected_so_far += rejected
        speed = done_so_far / max(time.monotonic() - started, 1e-9)
        so = f"{done_so_far:,}{of} {speed:,.0f}/s"
        if total is not None and done_so_far:
            left = max(total - done_so_far, 0) / max(speed, 1e-9)
            so += f" {datetime.timedelta(seconds=round(left))} left"
        if rejected_so_far:
            so += f" {rejected_so_far:,} rejected"
        bar.update(task, advance=done, so=so)
        show_in_time()

    show_in_time()
    try:
        yield report
    finally:
        if shown:
            bar.stop()


@contextlib.contextmanager
def _lines(console: object, title: str, total: int | None, unit: str) -> Iterator[Report]:
    """A line every LOG_INTERVAL, by a thread: a report may come only after minutes."""
    report = _LineReport(title, total, unit)
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(LOG_INTERVAL):
            console.print(report.line(), soft_wrap=True)  # type: ignore[attr-defined]

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()


class _LineReport:
    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._started = time.monotonic()
        self._done = self._rejected = 0

    def __call__(self, done: int, rejected: int = 0) -> None:
        self._done += done
        self._rejected += rejected

    def line(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        of = "" if self._total is None else f"/{self._total:,}"
        if not self._done:
            return f"{self._title}: 0{of} after {seconds:,.0f} s"
        left, speed = "", rate(self._done, seconds, self._unit)
        if self._total is not None:
            left = f", {(self._total - self._done) * seconds / self._done:,.0f} s left"
        bad = f", {self._rejected:,} rejected" if self._rejected else ""
        return f"{self._title}: {self._done:,}{of}, {speed}{left}{bad}"
