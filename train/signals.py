"""SIGTERM, SIGUSR1 and Ctrl-C while a run trains: the step under way ends, then a checkpoint.

Schedulers send them ahead of time (SLURM's --signal, Kubernetes' grace period). A second Ctrl-C
ends at once; the last checkpoint is whole in any case.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from prep.program import INTERRUPTED

WATCHED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Exit code after a checkpoint that SIGTERM or SIGUSR1 asked for; EX_TEMPFAIL of sysexits.h: the
# same command goes on.
CHECKPOINTED = 75


class Signals:
    """A context in which those signals are only noted."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def name(self) -> str:
        """For the screen; in a process that has seen none, another has."""
        return self.received.name if self.received else "signal"

    @property
    def exit_code(self) -> int:
        return INTERRUPTED if self.received == signal.SIGINT else CHECKPOINTED

    def __enter__(self) -> Self:
        for number in WATCHED:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
