"""Who may write a prepared set: one run at a time, and no worker that an earlier one left behind.

A run that was killed may leave workers in the middle of a unit. They end by themselves (prep.units,
or when a Dask cluster has done the unit); until then a new run waits, and a worker that comes later
finds that its run is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from prep.files import only_run
from prep.program import UserError

PATIENCE = 60.0  # seconds for the workers of a killed run to end
POLL = 0.05  # seconds
LOCKS = ("lock", "workers")  # files of the folder that is claimed, in the order of their making


@dataclasses.dataclass(frozen=True)
class Claim:
    """A run's right to write, which its workers hold while they do."""

    file: Path  # names the run that may write; locked by every worker that does
    run: str

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """In a worker: no other run begins while the block runs.

        Raises UserError when another one has begun.
        """
        over = f"the run that this worker belongs to is over ({self.file})"
        try:
            descriptor = os.open(self.file, os.O_RDONLY)
        except FileNotFoundError as error:
            raise UserError(over) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.pread(descriptor, 64, 0).decode() != self.run:
                raise UserError(over)
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def claimed(folder: Path, out: Path) -> Iterator[Claim]:
    """Claim `folder`, where the work on `out` is kept, for this process.

    Raises UserError when another run has it, or workers of an earlier one do not end.
    """
    with only_run(folder / LOCKS[0], out):
        claim = Claim((folder / LOCKS[1]).absolute(), uuid.uuid4().hex)
        descriptor = os.open(claim.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, claim.run.encode(), 0)
            _wait_for_workers(descriptor, out)
        except OSError as error:
            error.filename = str(claim.file)  # a write names no file
            raise
        finally:
            os.close(descriptor)
        yield claim


@contextlib.contextmanager
def work_folder(source: Path, out: Path) -> Iterator[tuple[Path, Claim]]:
    """Make `out`, and OUT/.prep for the work on it, which no other run writes.

    Raises UserError when `out` lies in the folder `source` or cannot be made.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"{out} lies in the source {source}, where it would be taken for pictures of it; "
            "give a folder elsewhere"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {out}: {error.strerror}; give another folder") from error
    work = out / ".prep"
    work.mkdir(exist_ok=True)
    with claimed(work, out) as claim:
        try:
            yield work, claim
        finally:  # nothing is left of a run that ended well, or was refused before it began
            if {path.name for path in work.iterdir()} <= set(LOCKS):
                give_back(work)


def give_back(folder: Path) -> None:
    """Remove a claimed folder that holds nothing but the claim, the lock last."""
    for name in reversed(LOCKS):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the next run has begun
        folder.rmdir()


def _wait_for_workers(descriptor: int, out: Path) -> None:
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() - started > PATIENCE:
                raise UserError(
                    f"workers of an earlier run are still writing {out}; end them, then run the "
                    "same command again"
                ) from error
            time.sleep(POLL)
        else:
            return
