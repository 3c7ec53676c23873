"""Locks that die with their process, where the file system has any.

Some network file systems have none (NFS without its lock service, Lustre mounted without `flock`),
on others each machine sees its own only. So no byte that several machines write depends on a lock:
a lock lets a second run be refused, or wait, before it does work for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prep.program import UserError

EXCLUSIVE, SHARED = fcntl.LOCK_EX, fcntl.LOCK_SH
POLL = 0.5  # seconds between tries
NOT_THERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system without locks says


def lock(descriptor: int, kind: int, wait: bool = False) -> None:
    """Lock an open file, EXCLUSIVE or SHARED; without effect where there are no locks.

    Raises BlockingIOError when another process has locked it, unless it is to `wait`.
    """
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise


@contextlib.contextmanager
def only_run(file: Path, out: Path, kind: int = EXCLUSIVE, patience: float = 0.0) -> Iterator[None]:
    """Refuse a second run that writes `out` while the block runs; SHARED runs suffer one another.

    Raises UserError when another process holds `file`, still after `patience` seconds.
    """
    descriptor = locked(file, out, kind, patience)
    try:
        yield
    finally:
        os.close(descriptor)


def locked(file: Path, out: Path, kind: int = EXCLUSIVE, patience: float = 0.0) -> int:
    """Open `file`, made if it is not there, and lock it. Raises UserError as lock_or_refuse."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        lock_or_refuse(descriptor, out, kind, patience)
        # Another process may have renamed or removed the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                return descriptor
        os.close(descriptor)


def lock_or_refuse(
    descriptor: int, out: Path, kind: int = EXCLUSIVE, patience: float = 0.0
) -> None:
    """Lock an open file; closes it and raises UserError when another process keeps it locked."""
    until = time.monotonic() + patience
    while True:
        try:
            lock(descriptor, kind)
            return
        except BlockingIOError as error:
            if time.monotonic() < until:
                time.sleep(POLL)
                continue
            os.close(descriptor)
            raise UserError(
                f"{out} is being written by another run; wait for it or give another name"
            ) from error
