"""Who may write a prepared set: one run at a time, and no worker that an earlier one left behind.

The parts of one run (`--part`) write side by side, on one machine or several. They all have the
same claim.

A run that was killed may leave workers in the middle of a unit. They end by themselves (prep.units,
or when a Dask cluster has done the unit); until then a new run waits, and a worker that comes later
finds that its run is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from prep import prepared
from prep.files import naming
from prep.locks import EXCLUSIVE, SHARED, lock, only_run
from prep.program import UserError

PATIENCE = 60.0  # seconds for the workers of a killed run to end
POLL = 0.05  # seconds
PARTS = "parts"  # the claim of all parts of a run
LOCKS = ("lock", "workers")  # files of the folder that is claimed, in the order of their making


@dataclasses.dataclass(frozen=True)
class Claim:
    """A run's right to write, which its workers hold while they do."""

    file: Path  # names the run that may write; locked by every worker that does
    run: str

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """In a worker: no other run begins while the block runs.

        Where locks are not seen by all, one may: what the block then fails by is told as that.
        Raises UserError when another one has begun.
        """
        over = f"the run that this worker belongs to is over ({self.file})"
        try:
            descriptor = os.open(self.file, os.O_RDONLY)
        except FileNotFoundError as error:
            raise UserError(over) from error
        try:
            lock(descriptor, SHARED, wait=True)
            if _read(descriptor) != self.run:
                raise UserError(over)
            yield
        except OSError as error:
            if self._over():
                raise UserError(over) from error
            raise
        finally:
            os.close(descriptor)

    def _over(self) -> bool:
        try:
            return self.file.read_text().strip() != self.run
        except FileNotFoundError:
            return True


@contextlib.contextmanager
def claimed(folder: Path, out: Path, part: bool = False) -> Iterator[Claim]:
    """Claim `folder`, where the work on `out` is kept, for this process, a whole run or a part.

    Raises UserError when another run has it, or workers of an earlier one do not end.
    """
    with only_run(folder / LOCKS[0], out, SHARED if part else EXCLUSIVE):
        claim = Claim((folder / LOCKS[1]).absolute(), PARTS if part else uuid.uuid4().hex)
        descriptor = os.open(claim.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with naming(claim.file):
                if not part:
                    _write(descriptor, claim)  # workers that come later find their run over
                _wait_for_workers(descriptor, claim, out)
                _write(descriptor, claim)
        finally:
            os.close(descriptor)
        yield claim


@contextlib.contextmanager
def work_folder(source: Path, out: Path, part: bool = False) -> Iterator[tuple[Path, Claim]]:
    """Make `out`, and OUT/.prep for the work on it, which no other run writes, or parts only.

    Raises UserError when `out` lies in the folder `source` or in a prepared split, or cannot be
    made.
    """
    _refuse_place(source, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {out}: {error.strerror}; give another folder") from error
    work = out / ".prep"
    work.mkdir(exist_ok=True)
    try:
        with claimed(work, out, part) as claim:
            try:
                yield work, claim
            finally:  # nothing is left of a run that ended well, or was refused before it began
                if not part and {path.name for path in work.iterdir()} <= set(LOCKS):
                    _give_back(work)
    finally:
        _remove_if_empty(work)  # on NFS a file that is removed keeps its folder until it is closed


def _refuse_place(source: Path, out: Path) -> None:
    """What is written among pictures would be taken for some of them."""
    place = out.resolve()
    if place == source.resolve():
        raise UserError(f"{out} is the source itself; give a folder elsewhere")
    if place.is_relative_to(source.resolve()):
        raise UserError(
            f"{out} lies in the source {source}, where it would be taken for pictures of it; "
            "give a folder elsewhere"
        )
    for folder in (place, *place.parents):
        if (
            folder.name  # "/" has none
            and prepared.manifest_path(folder).exists()
            and prepared.split_card_path(folder).exists()
        ):
            lies = "is" if folder == place else "lies in"
            raise UserError(f"{out} {lies} the prepared split {folder}; give a folder elsewhere")


def _give_back(folder: Path) -> None:
    """Remove a claimed folder that holds nothing but the claim, the lock last."""
    for name in reversed(LOCKS):
        (folder / name).unlink(missing_ok=True)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # of another run, which has begun
        folder.rmdir()


def _wait_for_workers(descriptor: int, claim: Claim, out: Path) -> None:
    """Wait until no worker of another claim writes."""
    started = time.monotonic()
    while claim.run != PARTS or _read(descriptor) != PARTS:  # else another part has waited
        try:
            lock(descriptor, EXCLUSIVE)
        except BlockingIOError as error:
            if time.monotonic() - started > PATIENCE:
                raise UserError(
                    f"workers of an earlier run are still writing {out}; end them, then run the "
                    "same command again"
                ) from error
            time.sleep(POLL)
        else:
            return


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 64, 0).decode().strip()


def _write(descriptor: int, claim: Claim) -> None:
    os.pwrite(descriptor, claim.run.encode().ljust(32), 0)
    os.ftruncate(descriptor, 32)
