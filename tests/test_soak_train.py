"""`train run` killed and told to end at random moments, and it ends with the same weights.

Run by `make soak`; the figures go to benchmarks/results/soak-kills-train-*.json.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_soak import save

from train import checkpoint as checkpoints
from train import metrics
from train.signals import CHECKPOINTED

pytestmark = pytest.mark.soak

TIMES, HALFWAY_AT_LEAST = 20, 16  # of each kind
STEPS = 24  # 8 epochs of 18 images in batches of 8, 8 and 2
RECIPE = {"width": 0.3, "batch": 8, "epochs": STEPS // 3, "learning_rate": 0.001}
TIMINGS = {"images_per_s", "data_wait", "seconds"}


def command(betons: Path, out: Path) -> list[str]:
    """Checkpoints after every step, all kept: their names tell how far a run is."""
    line = [str(Path(sys.executable).parent / "train"), "run"]
    line += ["--beton", str(betons / "train.beton"), "--out", str(out), "--recipe", "demo"]
    line += [f"--set={key}={value}" for key, value in RECIPE.items()]
    return [*line, "--workers", "1", "--checkpoint-steps", "1", "--keep", str(STEPS)]


def steps_done(out: Path) -> int:
    return len(list(out.glob("step-*.pt")))


def rows(out: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in TIMINGS}
        for row in metrics.read(out / metrics.FILE_NAME)
    ]


def assert_equal_runs(one: Path, two: Path) -> None:
    first, second = checkpoints.load(one), checkpoints.load(two)
    assert first.step == second.step == STEPS
    assert all(torch.equal(first.network[name], second.network[name]) for name in first.network)
    assert rows(one) == rows(two)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
@pytest.mark.parametrize("writing", [False, True], ids=["training", "writing a checkpoint"])
def test_ended_at_random_moments_it_ends_with_the_same_weights(
    betons: Path, tmp_path: Path, number: signal.Signals, writing: bool
) -> None:
    whole = tmp_path / "whole"
    subprocess.run(command(betons, whole), check=True, capture_output=True)
    chance, halfway, hits = random.Random(0), 0, 0
    for attempt in range(TIMES):
        out = tmp_path / f"out{attempt}"
        line = command(betons, out)
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wanted, partial = chance.randrange(1, STEPS - 3), out / "last.pt.new.partial"
        while process.poll() is None and steps_done(out) < wanted:
            time.sleep(0.001)
        if not writing:
            time.sleep(chance.uniform(0.0, 0.02))
        while process.poll() is None and partial.exists() != writing:
            pass
        if process.poll() is None:
            os.kill(process.pid, number)
        hits += partial.exists() == writing
        code = process.wait()
        done = steps_done(out)
        if 0 < done < STEPS:
            halfway += 1
            assert code == (-signal.SIGKILL if number == signal.SIGKILL else CHECKPOINTED)
        last = checkpoints.load(out).step if (out / "last.pt").exists() else 0
        assert last in (done - 1, done)  # killed before its last name
        subprocess.run(line, check=True, capture_output=True)
        assert_equal_runs(whole, out)
        shutil.rmtree(out)
    moment = "writing a checkpoint" if writing else "training"
    save(
        f"kills-train-{number.name.lower()}-{'writing' if writing else 'training'}",
        {
            "command": "train run",
            "signal": number.name,
            "while": moment,
            "times": TIMES,
            "neither before the first step nor after the last": halfway,
            f"{moment} just after the signal": hits,
        },
    )
    assert halfway >= HALFWAY_AT_LEAST
