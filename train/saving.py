"""When a run's checkpoints are written, and which are kept.

    RUN/last.pt            after every epoch, every so many steps or minutes, and on a signal
    RUN/best.pt            the epoch with the lowest of what the recipe watches, if it is measured
    RUN/step-00012345.pt   with --keep: the last so many of them

Each is one file, whole when it has its name. The others are links to what was written as last.pt.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from prep.files import whole_file
from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint

BEST = "best.pt"
KEPT = "step-*.pt"


class Saving:
    """every_steps, every_minutes: 0 for the ends of epochs only; keep: older ones, 0 for none."""

    def __init__(self, folder: Path, every_steps: int, every_minutes: float, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._every_steps, self._every_seconds = every_steps, every_minutes * 60
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether it is time for one in the middle of an epoch, after `step` steps."""
        if self._every_steps and step % self._every_steps == 0:
            return True
        return 0 < self._every_seconds <= time.monotonic() - self._last

    def save(self, checkpoint: Checkpoint, best: bool = False) -> Path:
        """Write it; returns where."""
        path = self._folder / checkpoints.FILE_NAME
        written = path.with_name(path.name + ".new")
        checkpoints.save(checkpoint, written)
        # last.pt at the end: a run that goes on from it has had its other names.
        if best:
            _link(written, self._folder / BEST)
        if self._keep:
            _link(written, self._folder / KEPT.replace("*", f"{checkpoint.step:08d}"))
        written.replace(path)
        if self._keep:
            for old in sorted(self._folder.glob(KEPT))[: -self._keep]:
                old.unlink()
        self._last = time.monotonic()
        return path

    def start_over(self) -> None:
        """Forget another run's."""
        for name in (checkpoints.FILE_NAME, BEST):
            (self._folder / name).unlink(missing_ok=True)
        for path in self._folder.glob(KEPT):
            path.unlink()


def _link(path: Path, other: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    partial = other.with_name(other.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:
        with whole_file(other) as partial:
            shutil.copyfile(path, partial)
    else:
        partial.replace(other)
