"""Locks: one run at a time, runs that suffer one another, and file systems that have no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from prep import locks
from prep.locks import SHARED, only_run
from prep.program import UserError


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    def second_run() -> None:
        with only_run(tmp_path / "lock", tmp_path):
            pass

    with only_run(tmp_path / "lock", tmp_path), pytest.raises(UserError, match="by another run"):
        second_run()
    second_run()


def test_who_has_patience_gets_a_lock_that_is_given_back_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL", 0.01)
    first = locks.locked(tmp_path / "lock", tmp_path)
    threading.Timer(0.3, os.close, [first]).start()
    started = time.monotonic()
    with only_run(tmp_path / "lock", tmp_path, patience=30):
        assert 0.2 < time.monotonic() - started < 10
        with (
            pytest.raises(UserError, match="by another run"),
            only_run(tmp_path / "lock", tmp_path, patience=0.05),
        ):
            pytest.fail("two runs")


def test_a_lock_that_was_removed_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real, removed = tmp_path / "lock", locks.lock_or_refuse, []

    def slow(descriptor: int, out: Path, kind: int, patience: float) -> None:
        if not removed:  # another run ends between our open and our lock
            lock.unlink()
            removed.append(lock)
        real(descriptor, out, kind, patience)

    monkeypatch.setattr(locks, "lock_or_refuse", slow)
    with only_run(lock, tmp_path):
        assert lock.exists()
        with pytest.raises(UserError, match="by another run"), only_run(lock, tmp_path):
            pytest.fail("two runs")


def test_shared_runs_suffer_one_another_and_no_other(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with only_run(lock, tmp_path, SHARED):
        with only_run(lock, tmp_path, SHARED):
            pass
        with pytest.raises(UserError, match="by another run"), only_run(lock, tmp_path):
            pytest.fail("two runs")
    with (
        only_run(lock, tmp_path),
        pytest.raises(UserError, match="by another run"),
        only_run(lock, tmp_path, SHARED),
    ):
        pytest.fail("two runs")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_run(tmp_path / "lock", tmp_path):
        pass


def test_what_else_a_lock_fails_by_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="the disk is gone"), only_run(tmp_path / "lock", tmp_path):
        pytest.fail("it wrote")
