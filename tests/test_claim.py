"""One run writes a prepared set, and no worker of an earlier one beside it."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from prep import build, claim, resize
from prep.claim import Claim, claimed, work_folder
from prep.plan import Options
from prep.program import UserError
from prep.sources import find_source
from prep.sources.listing import Source


def hold(mine: Claim, begun: Event, end: Event) -> None:
    with mine.held():
        begun.set()
        end.wait(30)


def test_a_new_run_waits_for_a_worker_of_the_last_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begun, end = context.Event(), context.Event()
    with claimed(tmp_path, tmp_path) as first:
        worker = context.Process(target=hold, args=(first, begun, end))
        worker.start()
        assert begun.wait(30)
    threading.Timer(0.5, end.set).start()
    started = time.monotonic()
    with claimed(tmp_path, tmp_path):
        assert time.monotonic() - started > 0.4
    worker.join(30)
    assert worker.exitcode == 0


def test_a_new_run_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 0.1)
    with claimed(tmp_path, tmp_path) as first, first.held():
        (tmp_path / "lock").rename(tmp_path / "another")  # as if its run had died
        with (
            pytest.raises(UserError, match="workers of an earlier run are still writing OUT;"),
            claimed(tmp_path, Path("OUT")),
        ):
            pytest.fail("it wrote")


def test_workers_hold_it_side_by_side(tmp_path: Path) -> None:
    with claimed(tmp_path, tmp_path) as mine, mine.held(), mine.held():
        pass


def test_a_worker_that_comes_too_late_writes_nothing(tmp_path: Path) -> None:
    with claimed(tmp_path, tmp_path) as first:
        pass
    with (
        claimed(tmp_path, tmp_path),
        pytest.raises(UserError, match="the run that this worker belongs to is over"),
        first.held(),
    ):
        pytest.fail("it wrote")
    (tmp_path / "workers").unlink()  # the second run has ended well
    with pytest.raises(UserError, match="is over"), first.held():
        pytest.fail("it wrote")


def test_what_fails_in_the_block_is_not_hidden(tmp_path: Path) -> None:
    with (
        claimed(tmp_path, tmp_path) as mine,
        pytest.raises(FileNotFoundError, match="nothing"),
        mine.held(),
    ):
        (tmp_path / "nothing").read_bytes()


def test_what_fails_because_another_run_began_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)  # no lock keeps the other out
    with (
        claimed(tmp_path, tmp_path) as mine,
        pytest.raises(UserError, match="is over"),
        mine.held(),
        claimed(tmp_path, tmp_path),
    ):
        (tmp_path / "nothing").read_bytes()


def test_the_source_itself_is_no_place_to_write(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "x" / ".."):
        with pytest.raises(UserError, match=r"is the source itself; give a folder elsewhere"):
            enter(tmp_path, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("within", ["", "new", "n90000001/new"])
def test_a_prepared_split_is_no_place_to_write(
    prepared_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    copy = Path(shutil.copytree(prepared_set, tmp_path / "out"))
    before = sorted(copy.rglob("*"))
    lies = "lies in" if within else "is"
    wanted = rf"{lies} the prepared split {copy / 'train'}; give a folder elsewhere"
    with pytest.raises(UserError, match=wanted):
        enter(tmp_path / "src", copy / "train" / within)
    monkeypatch.chdir(copy / "train")
    with pytest.raises(UserError, match=wanted):
        enter(tmp_path / "src", Path(within))
    assert sorted(copy.rglob("*")) == before
    enter(tmp_path / "src", copy)  # the set's own folder: the same command again


def enter(source: Path, out: Path) -> None:
    with work_folder(source, out):
        pass


@pytest.fixture
def nfs_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that this process removes while it is open keeps its folder, as on NFS."""
    remove = os.rmdir

    def rmdir(path: str | Path, *, dir_fd: int | None = None) -> None:
        ours = Path("/proc/self/fd")
        place = ((ours / str(dir_fd)).readlink() if dir_fd else Path.cwd()) / path
        for descriptor in ours.iterdir():
            file = Path()
            with contextlib.suppress(OSError):  # of this loop's own look at the folder
                file = descriptor.readlink()
            if file.name.endswith(" (deleted)") and file.parent == place:
                raise OSError(errno.ENOTEMPTY, "Directory not empty", str(place))
        remove(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)


@pytest.mark.usefixtures("nfs_folders")
@pytest.mark.parametrize("command", [resize.resize, build.build])
def test_nothing_is_left_where_open_files_keep_their_folder(
    source: Path, tmp_path: Path, command: Callable[[Source, Path, Options], object]
) -> None:
    command(find_source(source), tmp_path / "out", Options(jobs=1))
    assert not list(tmp_path.rglob(".*"))
