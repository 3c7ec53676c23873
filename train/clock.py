"""The time of an epoch's training: what its rate and its share of waiting for data are of.

Goes on in a resumed epoch from what the checkpoint has; the time between is left out, and so is
that of compiling, of checkpoints being read, of validation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence


class EpochClock:
    """Seconds, those of them that waited for data, and images of all processes.

    The window is what lies between two rows of metrics.jsonl.
    """

    def __init__(self) -> None:
        self.images = 0
        self._seconds = self._waited = 0.0  # up to the last stop
        self._started: float | None = None
        self._asked = self._window_started = 0.0
        self._window_images = 0
        self._window_waited = 0.0

    def start(self) -> None:
        """Count from now on; what has been counted since the last start is not."""
        self._started = self._asked = self._window_started = time.perf_counter()
        self._window_images, self._window_waited = self.images, self._waited

    def stop(self) -> None:
        """Count no further."""
        self._seconds, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        if self._started is None:
            return self._seconds
        return self._seconds + time.perf_counter() - self._started

    def ask(self) -> None:
        """For the next batch."""
        self._asked = time.perf_counter()

    def got(self) -> None:
        """The batch that was asked for."""
        self._waited += time.perf_counter() - self._asked

    def window(self) -> dict[str, float]:
        """Figures since the last time, or since the start."""
        now = time.perf_counter()
        seconds = now - self._window_started
        figures = {
            "images_per_s": (self.images - self._window_images) / seconds,
            "data_wait": (self._waited - self._window_waited) / seconds,
        }
        self._window_started, self._window_images = now, self.images
        self._window_waited = self._waited
        return figures

    def figures(self) -> dict[str, float]:
        """Of the epoch so far."""
        seconds = self.seconds
        return {
            "images_per_s": self.images / seconds,
            "data_wait": self._waited / seconds,
            "seconds": seconds,
        }

    def state(self) -> list[float]:
        """For a checkpoint."""
        return [self.seconds, self._waited, float(self.images)]

    def load(self, state: Sequence[float]) -> None:
        """Go on from state()."""
        self._seconds, self._waited, self.images = state[0], state[1], int(state[2])


def duration(seconds: float) -> str:
    """For people: "90 s", "12 min", "7.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
