"""A write that was stopped is carried on: finished pages stay, and the bytes are the same."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import fill_disk

from prep import beton, write
from prep.files import whole_file
from prep.journal import Journal
from prep.order import BY_CLASS, Order
from prep.program import UserError
from prep.write import write_beton

PAGE = 1 << 18  # bytes: one raw sample a page, so 18 pages
PLAN = bytes(range(32))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beton, "PAGE_SIZE", PAGE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "train.beton"


def stop_after(monkeypatch: pytest.MonkeyPatch, pages: int, failure: BaseException) -> None:
    """Let the write end with `failure` when so many pages are in the journal."""
    real, noted = Journal.add, 0

    def add(journal: Journal, first: int, crc32: object) -> None:
        nonlocal noted
        if noted == pages:
            raise failure
        noted += 1
        real(journal, first, crc32)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "add", add)


@pytest.fixture
def whole(prepared_set: Path, tmp_path: Path) -> bytes:
    (tmp_path / "whole").mkdir()
    write_beton(prepared_set / "train", tmp_path / "whole" / "train.beton", "raw", jobs=1)
    return (tmp_path / "whole" / "train.beton").read_bytes()


def stopped(prepared_set: Path, place: Path, pages: int) -> None:
    """A write of `pages` pages that Ctrl-C ended."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, pages, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            write_beton(prepared_set / "train", place, "raw", jobs=2)
    assert [path.name for path in place.parent.glob("train.*")] == ["train.beton.partial"]


@pytest.mark.parametrize("pages", [0, 1, 7, 17])
def test_finished_pages_are_not_written_again(
    prepared_set: Path, place: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    stopped(prepared_set, place, pages)
    read: list[range] = []
    real = write.PreparedSplit.places

    def places(split: write.PreparedSplit, start: int, stop: int) -> object:
        read.append(range(start, stop))
        return real(split, start, stop)

    monkeypatch.setattr(write.PreparedSplit, "places", places)
    written = write_beton(prepared_set / "train", place, "raw", jobs=2)
    assert written.kept == pages
    assert sorted(sample for part in read for sample in part) == list(range(pages, 18))
    assert place.read_bytes() == whole
    assert not place.with_name("train.beton.partial").exists()


@pytest.mark.parametrize("where", ["record", "padding", "cut"])
def test_a_page_that_is_not_as_it_was_written_is_written_again(
    prepared_set: Path, place: Path, whole: bytes, where: str
) -> None:
    """As after a power cut, when the disk had some pages only."""
    stopped(prepared_set, place, 9)
    partial = place.with_name("train.beton.partial")
    offset = PAGE * (1 + 4) + {"record": 99, "padding": PAGE - 1, "cut": 0}[where]
    with partial.open("r+b") as file:
        if where == "cut":
            file.seek(offset)
            file.write(bytes(PAGE))
        else:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
    assert write_beton(prepared_set / "train", place, "raw", jobs=1).kept == 8
    assert place.read_bytes() == whole


@pytest.mark.parametrize("other", ["split", "mode", "order", "seed", "no journal", "garbage"])
def test_the_rest_of_another_beton_is_not_carried_on(
    prepared_set: Path, place: Path, other: str
) -> None:
    split, mode, order = prepared_set / "train", "raw", Order("shuffled", 1)
    changed = {
        "split": (prepared_set / "val", mode, order),
        "mode": (split, "jpg", order),
        "order": (split, mode, BY_CLASS),
        "seed": (split, mode, Order("shuffled", 2)),
    }
    partial = place.with_name("train.beton.partial")
    if other in changed:
        before = changed[other]
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, 0 if other == "mode" else 1, KeyboardInterrupt())  # of one page, jpg
            with pytest.raises(KeyboardInterrupt):
                write_beton(before[0], place, before[1], 1, before[2])
        assert partial.exists()
    else:
        partial.write_bytes(bytes(100) if other == "no journal" else os.urandom(9_000_000))
    assert write_beton(split, place, mode, 1, order).kept == 0
    (place.parent / "new").mkdir()
    write_beton(split, place.parent / "new" / "train.beton", mode, 1, order)
    assert place.read_bytes() == (place.parent / "new" / "train.beton").read_bytes()


def test_a_write_that_fails_leaves_nothing(
    prepared_set: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 3, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="train"):
        write_beton(prepared_set / "train", place, "raw", jobs=2)
    assert list(place.parent.iterdir()) == []


# A write in a process of its own, with small pages and time to be killed in.
CHILD = """
import pathlib, sys, time
from prep import beton, journal, write
from prep.order import Order

beton.PAGE_SIZE = 1 << 18
add = journal.Journal.add

def slowly(*arguments):
    add(*arguments)
    time.sleep(0.02)

journal.Journal.add = slowly
write.write_beton(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "raw", 2)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_a_random_moment_it_is_carried_on(
    prepared_set: Path, place: Path, whole: bytes, seed: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(prepared_set / "train"), str(place)]
    process = subprocess.Popen(command)
    partial, wanted = place.with_name("train.beton.partial"), random.Random(seed).randrange(1, 15)
    started = time.monotonic()

    def pages() -> int:
        size = partial.stat().st_size if partial.exists() else 0
        return max(size - len(whole) - len(PLAN), 0) // 4

    while pages() < wanted and time.monotonic() - started < 30:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9
    done = pages()
    assert 0 < done < 18
    assert not place.exists()
    assert done <= write_beton(prepared_set / "train", place, "raw", jobs=1).kept <= done + 1
    assert place.read_bytes() == whole


def test_of_two_runs_at_once_the_second_is_refused(
    prepared_set: Path, place: Path, whole: bytes
) -> None:
    command = [sys.executable, "-c", CHILD, str(prepared_set / "train"), str(place)]
    first, partial = subprocess.Popen(command), place.with_name("train.beton.partial")
    while not partial.exists() or partial.stat().st_size < len(whole):
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # in the middle of it
    with pytest.raises(UserError, match=r"train\.beton is being written by another run; wait"):
        write_beton(prepared_set / "train", place, "raw", jobs=1)
    assert not place.exists()
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert place.read_bytes() == whole


# --------------------------------------------------------------------------- the journal alone


def test_a_journal_gives_back_what_was_noted(tmp_path: Path) -> None:
    file = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    first = Journal(file, end=1000, samples=9, plan=PLAN)
    assert len(first.claims) == 0
    first.add(0, np.array([1, 2**32 - 1], np.uint32))
    first.add(2, np.array([7], np.uint32))
    os.pwrite(file, b"\1", os.fstat(file).st_size)  # a row that was cut short
    again = Journal(file, end=1000, samples=9, plan=PLAN)
    assert again.claims.tolist() == [1, 2**32 - 1, 7]
    assert len(Journal(file, 1000, 9, bytes(32)).claims) == 0
    assert len(Journal(file, 1000, 9, PLAN).claims) == 0
    first.cut_off()
    assert os.fstat(file).st_size == 1000
    os.close(file)


def test_what_a_full_disk_takes_a_part_of_is_an_error(small_disk: Path) -> None:
    """The end lies in a block that is there, so that some bytes fit behind it."""
    end = 4096 - len(PLAN) - 8
    with (small_disk / "x").open("w+b", buffering=0) as opened:
        file = opened.fileno()
        os.pwrite(file, b"of the samples", end - 20)
        fill_disk(small_disk, 0)
        with pytest.raises(OSError, match="No space left on device"):
            Journal.begin(file, end + 20, PLAN)
        Journal.begin(file, end, PLAN)
        with pytest.raises(OSError, match="No space left on device"):
            Journal(file, end, 9, PLAN).add(0, np.arange(9, dtype=np.uint32))


def test_a_second_writer_does_not_touch_what_the_first_has(prepared_set: Path, place: Path) -> None:
    stopped(prepared_set, place, 5)
    with whole_file(place, resume=True) as partial:
        before = partial.read_bytes()
        with pytest.raises(UserError, match="is being written by another run"):
            write_beton(prepared_set / "train", place, "raw", jobs=1)
        assert partial.read_bytes() == before
