"""A progress bar on a terminal; elsewhere one line every 30 seconds."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import Protocol

from prep.program import rate, visible

LOG_INTERVAL = 30.0  # seconds between lines when the output is not a terminal


class Report(Protocol):
    """Called with the number of images done and rejected since the last call."""

    def __call__(self, done: int, rejected: int = 0) -> None: ...


@contextlib.contextmanager
def progress(title: str, total: int | None) -> Iterator[Report]:
    """Show count, images a second, time left and rejects on standard error while the block runs.

    `total` is None where nobody knows it yet.
    """
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    title = visible(title)
    if console.is_terminal:
        with _bar(console, title, total) as report:
            yield report
    else:
        yield _LineReport(console, title, total)


@contextlib.contextmanager
def _bar(console: object, title: str, total: int | None) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    assert isinstance(console, Console)
    known = (BarColumn(bar_width=20),) if total is not None else ()
    texts = (TextColumn(f"{{task.{text}}}", markup=False) for text in ("description", "fields[so]"))
    with Progress(next(texts), *known, next(texts), console=console) as bar:
        of = "" if total is None else f"/{total:,}"
        task = bar.add_task(title, total=total, so=f"0{of}, starting")
        started, done_so_far, rejected_so_far = time.monotonic(), 0, 0

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

        yield report


class _LineReport:
    def __init__(self, console: object, title: str, total: int | None) -> None:
        self._console, self._title, self._total = console, title, total
        self._started = self._last = time.monotonic()
        self._done = self._rejected = 0

    def __call__(self, done: int, rejected: int = 0) -> None:
        self._done += done
        self._rejected += rejected
        now = time.monotonic()
        if now - self._last >= LOG_INTERVAL:
            self._last = now
            seconds = max(now - self._started, 1e-9)
            of, left = "", ""
            if self._total is not None:
                of = f"/{self._total:,}"
                left = f", {(self._total - self._done) * seconds / self._done:,.0f} s left"
            bad = f", {self._rejected:,} rejected" if self._rejected else ""
            self._console.print(  # type: ignore[attr-defined]
                f"{self._title}: {self._done:,}{of}, {rate(self._done, seconds)}{left}{bad}",
                soft_wrap=True,
            )
