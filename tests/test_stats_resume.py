"""A killed `prep stats` goes on: the same bytes, nothing done twice, no foreign sums taken over."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prep import stats, stats_resume
from prep.moments import moments_of, zero_moments
from prep.program import UserError
from prep.stats_resume import Checkpoint, SoFar, name_of
from prep.stats_source import open_training

CHECKPOINT = "train.stats.npz.checkpoint"
KILLED = """
import os, signal, sys
from pathlib import Path
from prep import stats, stats_resume

stats.UNIT_SIZE = 3
stats_resume.COST = float("inf")  # a checkpoint after each unit
save, replace = stats.Checkpoint.save_if_due, Path.replace
units = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def save_and_die(self, so_far):
    save(self, so_far)
    if so_far.done.sum() == 4:
        die()

def die_before_the_name(self, target):
    global units
    units += 1
    if units == 4:
        die()
    return replace(self, target)

if sys.argv[2] == "after a unit":
    stats.Checkpoint.save_if_due = save_and_die
elif sys.argv[2] == "before a checkpoint has its name":
    Path.replace = die_before_the_name
stats.measure(Path(sys.argv[1]), jobs=1)
"""


@pytest.fixture
def copy(prepared_set: Path, tmp_path: Path) -> Path:
    """A prepared set without statistics, which a test may change."""
    out = Path(shutil.copytree(prepared_set, tmp_path / "out"))
    (out / "train.stats.npz").unlink()
    return out


@pytest.fixture
def measured_units(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the units that this process measures, of three pictures each."""
    numbers: list[int] = []

    def noted(unit: stats.Unit) -> object:
        numbers.append(unit.number)
        return unit_moments(unit)

    unit_moments = stats.unit_moments
    monkeypatch.setattr(stats, "UNIT_SIZE", 3)
    monkeypatch.setattr(stats, "unit_moments", noted)
    return numbers


@pytest.mark.parametrize(
    ("moment", "saved"), [("after a unit", 4), ("before a checkpoint has its name", 3)]
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    copy: Path, prepared_set: Path, measured_units: list[int], moment: str, saved: int
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(copy / "train"), moment], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (copy / "train.stats.npz").exists()
    resumed = stats.measure(copy / "train", jobs=1).resumed
    assert measured_units == list(range(saved, 6))
    assert resumed == 3 * saved
    expected = (prepared_set / "train.stats.npz").read_bytes()
    assert (copy / "train.stats.npz").read_bytes() == expected
    assert not list(copy.glob("*.checkpoint*"))
    assert not list(copy.glob("*.partial"))


def fail_from(unit_number: int, monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Run and fail at a unit, every one before it being in the checkpoint."""

    def failing(unit: stats.Unit) -> object:
        if unit.number == unit_number:
            raise UserError("that far")
        return unit_moments(unit)

    unit_moments = stats.unit_moments
    with monkeypatch.context() as patched:
        patched.setattr(stats, "unit_moments", failing)
        patched.setattr(stats_resume, "COST", float("inf"))
        with pytest.raises(UserError, match="that far"):
            stats.measure(copy / "train", jobs=1)
    assert (copy / CHECKPOINT).exists()
    assert not (copy / "train.stats.npz").exists()


def test_a_run_that_failed_goes_on(
    copy: Path, measured_units: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(5, monkeypatch, copy)
    measured_units.clear()
    assert stats.measure(copy / "train", jobs=1).resumed == 15
    assert measured_units == [5]
    measured_units.clear()
    assert stats.measure(copy / "train", jobs=1).resumed == 0  # it has ended well
    assert len(measured_units) == 6


@pytest.mark.parametrize("change", ["other data", "damaged", "cut short", "lacks a part"])
def test_a_checkpoint_of_anything_else_is_passed_over(
    copy: Path, prepared_set: Path, measured_units: list[int], change: str
) -> None:
    path = copy / CHECKPOINT
    sums = SoFar(moments_of(np.full((3, 256, 256, 3), 9, np.uint8)), np.arange(6) == 0)
    of = name_of(open_training(copy / "train"), 3)
    Checkpoint(copy / "train.stats.npz", "other" if change == "other data" else of).save_if_due(
        sums
    )
    data = bytearray(path.read_bytes())
    if change == "damaged":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif change == "cut short":
        path.write_bytes(data[:5000])
    elif change == "lacks a part":
        with path.open("wb") as file:
            np.savez(file, of=of)
    assert stats.measure(copy / "train", jobs=1).resumed == 0
    assert len(measured_units) == 6
    expected = (prepared_set / "train.stats.npz").read_bytes()
    assert (copy / "train.stats.npz").read_bytes() == expected


def test_a_measurement_s_name_tells_apart_whatever_changes_its_sums(prepared_set: Path) -> None:
    samples = open_training(prepared_set / "train")
    others = [
        dataclasses.replace(samples, crc32=samples.crc32[::-1].copy()),  # another order
        dataclasses.replace(samples, decoder="another"),
        dataclasses.replace(samples, card=dataclasses.replace(samples.card, pixels_id="0")),
        dataclasses.replace(samples, card=dataclasses.replace(samples.card, side=255)),
        dataclasses.replace(samples, card=dataclasses.replace(samples.card, mode="raw")),
    ]
    named = {name_of(other, 1024) for other in [samples, *others]} | {name_of(samples, 1023)}
    assert len(named) == 7
    assert name_of(open_training(prepared_set / "train"), 1024) in named


def test_checkpoints_take_a_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 100.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    class SlowDisk:
        def __enter__(self) -> Path:
            Clock.now += 0.5  # seconds a save
            saves.append(Clock.now)
            return tmp_path / "checkpoint"

        def __exit__(self, *_: object) -> None: ...

    saves: list[float] = []
    monkeypatch.setattr(stats_resume, "time", Clock)
    monkeypatch.setattr(stats_resume, "whole_file", lambda _: SlowDisk())
    checkpoint = Checkpoint(tmp_path / "out", "of")
    so_far = SoFar(zero_moments(2), np.zeros(3, np.bool_))
    for _ in range(1000):
        checkpoint.save_if_due(so_far)
        Clock.now += 1.0  # a unit
    assert 0.009 <= 0.5 * len(saves) / (Clock.now - 100.0) <= 0.0101
    saves.clear()
    Clock.now += 1000
    so_far.done[:] = True
    checkpoint.save_if_due(so_far)  # the result comes next
    assert saves == []
