"""`prep stats` as a process, where something goes wrong: one line, no hang, nothing left over."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import fill_disk

from prep.prepared import open_prepared

SLOWLY = """
import signal, time
from prep import cli, stats, stats_resume

def slowly(unit):
    from prep import stats
    time.sleep(0.1)
    return stats.unit_moments(unit)

run_units = stats.run_units
stats.run_units = lambda function, units, jobs: run_units(slowly, units, jobs)
stats.UNIT_SIZE = 1
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job has not
stats_resume.COST = float("inf")  # a checkpoint after each picture
cli.main()
"""
PATIENCE = 60  # seconds for what takes five; longer is a hang

Run = subprocess.Popen[str]


@pytest.fixture
def copy(prepared_set: Path, tmp_path: Path) -> Path:
    """A prepared set without statistics, which a test may change."""
    out = Path(shutil.copytree(prepared_set, tmp_path / "out"))
    (out / "train.stats.npz").unlink()
    return out


@pytest.fixture
def expected(prepared_set: Path) -> bytes:
    return (prepared_set / "train.stats.npz").read_bytes()


def start(out: Path, jobs: int = 1) -> Run:
    """A unit for each of the 18 pictures."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "stats", str(out / "train"), "--jobs", str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def halfway(copy: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run that has measured some of the pictures of `copy`, and has most of them before it."""
    with start(copy, getattr(request, "param", 1)) as run:
        deadline = time.monotonic() + PATIENCE
        while not (copy / "train.stats.npz.checkpoint").exists():
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield run
        finally:
            run.kill()


def end(run: Run) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = run.communicate(timeout=PATIENCE)
    return run.returncode, out, err


def fails(run: Run, line: str) -> bool:
    """Whether a run ends as a failure should: exit 1, this one line, no output."""
    code, out, err = end(run)
    return (code, out) == (1, "") and re.fullmatch(rf"prep: {line}\n", err) is not None


def goes_on(out: Path, expected: bytes) -> bool:
    """Whether the same command goes on where an earlier one ended, and leaves nothing else."""
    code, said, err = end(start(out))
    assert (code, err) == (0, "")
    assert (out / "train.stats.npz").read_bytes() == expected
    assert not list(out.glob("train.stats.npz.*"))
    return re.search(r": (\d+) images in .*, (\d+) more by an earlier run", said) is not None


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("fault", ["vanishes", "changes"])
def test_a_file_that_changes_during_the_run_ends_it(copy: Path, halfway: Run, fault: str) -> None:
    path = open_prepared(copy / "train").places(17, 18)[0].path
    data = path.read_bytes()
    path.unlink()
    said = "cannot be read: No such file or directory"
    if fault == "changes":
        path.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
        said = r"has changed since it was prepared \(.*\)"
    assert fails(halfway, rf"{path} {said}; remove this prepared set and run `prep resize` again")
    assert not (copy / "train.stats.npz").exists()


# --------------------------------------------------------------------------- processes


def workers_of(run: Run) -> list[int]:
    """The numbers of a run's worker processes, not of joblib's helpers."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"loky" in (commands := Path(f"/proc/{child}/cmdline").read_bytes())
        and b"tracker" not in commands
    ]


@pytest.mark.parametrize("halfway", [2], indirect=True)
def test_a_killed_worker_ends_the_run_and_the_next_one_goes_on(
    copy: Path, halfway: Run, expected: bytes
) -> None:
    workers = workers_of(halfway)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert fails(halfway, r"one of 2 worker processes died .*; run the same command again .*")
    assert not (copy / "train.stats.npz").exists()
    assert goes_on(copy, expected)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_killed_run_goes_on(copy: Path, halfway: Run, expected: bytes, attempt: int) -> None:
    time.sleep(random.Random(attempt).uniform(0, 0.8))
    assert halfway.poll() is None
    halfway.kill()
    assert end(halfway)[0] == -signal.SIGKILL
    assert not (copy / "train.stats.npz").exists()
    assert goes_on(copy, expected)


def test_an_interrupted_run_says_so_and_goes_on(copy: Path, halfway: Run, expected: bytes) -> None:
    halfway.send_signal(signal.SIGINT)
    code, out, err = end(halfway)
    assert (code, out) == (130, "")
    assert re.fullmatch(r"\s*prep: interrupted; the same command carries on .*\n", err)
    assert not (copy / "train.stats.npz").exists()
    assert goes_on(copy, expected)


def test_a_second_run_is_refused_and_the_first_one_ends_well(
    copy: Path, halfway: Run, expected: bytes
) -> None:
    path = copy / "train.stats.npz"
    halfway.send_signal(signal.SIGSTOP)  # the second one takes longer to start than this to end
    assert fails(start(copy), rf"{path} is being written by another run; wait for it or .*")
    halfway.send_signal(signal.SIGCONT)
    code, said, err = end(halfway)
    assert (code, err) == (0, "")
    assert f"{path}: 18 images in" in said
    assert path.read_bytes() == expected


# --------------------------------------------------------------------------- disks


@pytest.fixture
def on_small_disk(prepared_set: Path, small_disk: Path) -> Path:
    """The prepared training split, old statistics beside it, on a disk of 1 MiB."""
    shutil.copytree(prepared_set / "train", small_disk / "train")
    for name in ("train.json", "train.parquet"):
        shutil.copy(prepared_set / name, small_disk)
    (small_disk / "train.stats.npz").write_bytes(b"old")
    return small_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("where", ["at a checkpoint", "at the end"])
def test_a_full_disk_ends_the_run_and_leaves_the_old_statistics(
    on_small_disk: Path, where: str
) -> None:
    fill_disk(on_small_disk, blocks_left=20)
    before = names(on_small_disk)
    full = r"No space left on device; make room, then run the same command again"
    if where == "at a checkpoint":
        run, name = start(on_small_disk), r"train\.stats\.npz\.checkpoint"
    else:  # all pictures are one unit
        command = [sys.executable, "-m", "prep.cli", "stats", str(on_small_disk / "train")]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        name = r"train\.stats\.npz"
    assert fails(run, rf"{on_small_disk}/{name}: {full}")
    assert names(on_small_disk) == before
    assert (on_small_disk / "train.stats.npz").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(on_small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(on_small_disk)], check=True)
    said = r"cannot write .*train\.stats\.npz: Read-only file system; give a folder that .*"
    assert fails(start(on_small_disk), said)
    assert (on_small_disk / "train.stats.npz").read_bytes() == b"old"
