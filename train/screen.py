"""What a person sees while a run trains: a bar on a terminal, elsewhere a line every 30 seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prep.program import first_line, visible

Item = TypeVar("Item")

LOG_INTERVAL = 30.0  # seconds between lines when the output is not a terminal


class Screen:
    """Used as a context; everything goes to standard error, results to standard output.

    log: a file that lines are added to, with the time; silent: for all processes but the first.
    """

    def __init__(self, log: Path | None = None, silent: bool = False) -> None:
        # Paths are shown as they are, brackets and :names: too.
        self._console = Console(stderr=True, markup=False, emoji=False, quiet=silent)
        self._log = log
        self._bar: Progress | None = None
        if self._console.is_terminal and not silent:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
        self._task: Any = None
        self._title, self._total = "", 0
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        if isinstance(error, Exception):  # the program tells it on the screen
            self._note(visible(f"ended: {first_line(error)}"))

    def line(self, text: str) -> None:
        """A line that stays."""
        text = visible(text)
        self._console.print(text, highlight=False, soft_wrap=True)
        self._note(text)

    def _note(self, text: str) -> None:
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @contextlib.contextmanager
    def counting(self, title: str, total: int) -> Iterator[None]:
        """Show the progress of `total` steps while the block runs."""
        self._title, self._total = title, total
        if self._bar:
            self._task = self._bar.add_task(title, total=total, figures="")
        try:
            yield
        finally:
            if self._bar:
                self._bar.remove_task(self._task)

    def follow(self, title: str, items: Iterable[Item], total: int) -> Iterator[Item]:
        """Yield the items while counting them on the screen."""
        with self.counting(title, total):
            for done, item in enumerate(items):
                self.step(done, "")
                yield item

    def step(self, done: int, figures: str) -> None:
        """`done` steps of the running count, with the figures so far."""
        if self._bar:
            self._bar.update(self._task, completed=done, figures=figures)
        elif time.monotonic() - self._last >= LOG_INTERVAL:
            self._last = time.monotonic()
            self.line(f"{self._title}: step {done}/{self._total}" + (figures and f", {figures}"))
