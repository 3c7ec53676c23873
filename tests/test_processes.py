"""Several processes give the losses and weights of one; torchrun's environment is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prep.program import UserError
from train import checkpoint as checkpoints
from train import metrics
from train.processes import ALONE, from_environment

RECIPE = ["--recipe", "paper", "--set", "width=0.05", "--set", "schedule=steps"]
STEPS_AN_EPOCH = 4  # 18 images in batches of 5, 5, 5 and 3
# The paper's init gives a net of this width logits of 0, and nothing to compare.
TINY = [*RECIPE, *(f"--set={key}" for key in ("batch=5", "init=he", "learning_rate=1e-5"))]


def train(processes: int, betons: Path, out: Path, epochs: int, *options: str) -> str:
    """Run `train run` by torchrun; returns what it says. The checkpoint is named once."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += [f"--nproc-per-node={processes}", "-m", "train.cli"]
    alone = [sys.executable, "-m", "train.cli"]
    command = ["run", "--beton", str(betons / "train.beton"), "--out", str(out), *TINY]
    command += ["--set", f"epochs={epochs}", "--workers", "1", "--device", "cpu", *options]
    done = subprocess.run(
        [*(torchrun if processes > 1 else alone), *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'last.pt'}\n"
    return done.stderr


def rows(out: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in metrics.read(out / metrics.FILE_NAME) if row["kind"] == kind]


@pytest.fixture(scope="module")
def one(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps of one process, dropout on, last batches of three samples."""
    out = tmp_path_factory.mktemp("one") / "run"
    train(1, betons, out, 5)
    assert checkpoints.load(out).step == 5 * STEPS_AN_EPOCH
    return out


def assert_same_run(one: Path, two: Path) -> None:
    first, second = checkpoints.load(one), checkpoints.load(two)
    assert first.step == second.step
    for name, weights in first.network.items():
        torch.testing.assert_close(weights, second.network[name], rtol=1e-4, atol=1e-6, msg=name)
    for kind, keys in (
        ("step", ("loss", "top1_error", "gradient_norm")),
        ("epoch", ("loss", "top1_error", "val_loss", "val_top1_error")),
    ):
        assert len(rows(one, kind)) == len(rows(two, kind)) == 5
        for mine, theirs in zip(rows(one, kind), rows(two, kind), strict=True):
            for key in keys:
                assert theirs[key] == pytest.approx(mine[key], rel=1e-5), (kind, key)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_several_processes_give_the_losses_of_one(
    betons: Path, one: Path, tmp_path: Path, processes: int
) -> None:
    """Of four, one has no sample in an epoch's last batch, and two have none of validation's."""
    said = train(processes, betons, tmp_path / "run", 5)
    assert f"in each of {processes} processes" in said
    assert said.count("epoch 5/5: loss") == 1  # process 0 alone speaks
    assert_same_run(one, tmp_path / "run")
    losses = [row["loss"] for row in rows(one, "step")]
    assert max(losses) - min(losses) > 0.01  # it moves


@pytest.mark.soak
def test_a_run_goes_on_with_another_number_of_processes(
    betons: Path, one: Path, tmp_path: Path
) -> None:
    train(2, betons, tmp_path / "run", 2)
    train(1, betons, tmp_path / "run", 5)
    assert_same_run(one, tmp_path / "run")


def test_validation_is_of_the_network_that_is_saved(betons: Path, tmp_path: Path) -> None:
    """On CPUs each process's batch norm has running figures of its own images; process 0 saves."""
    out = tmp_path / "run"
    train(2, betons, out, 2, "--set", "network=paper-batch-norm", "--set", "learning_rate=0.01")
    line = [sys.executable, "-m", "train.cli", "eval", str(out), "--json"]
    line += ["--beton", str(betons / "val.beton"), "--device", "cpu", "--workers", "1"]
    judged = subprocess.run(line, capture_output=True, text=True, check=True)
    found = json.loads(judged.stdout)["views"]["1"]
    last = rows(out, "epoch")[-1]
    assert last["val_loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert last["val_top1_error"] == pytest.approx(found["top1_error"])


def test_three_processes_that_are_stopped_end_with_the_very_weights(
    betons: Path, tmp_path: Path
) -> None:
    """gloo adds three numbers in an order that depends on their place among the gradients."""
    wide = ("--set", "width=0.25")
    train(3, betons, tmp_path / "whole", 2, *wide)
    train(3, betons, tmp_path / "stopped", 1, *wide)
    train(3, betons, tmp_path / "stopped", 2, *wide)
    whole, stopped = (checkpoints.load(tmp_path / name) for name in ("whole", "stopped"))
    assert whole.step == stopped.step == 2 * STEPS_AN_EPOCH
    assert all(torch.equal(values, stopped.network[name]) for name, values in whole.network.items())


def test_without_torchrun_there_is_one_process() -> None:
    assert from_environment({}) == (0, 1, 0)
    assert ALONE.first
    assert ALONE.largest(2) == 2
    assert ALONE.add_up(torch.ones(3)).tolist() == [1, 1, 1]


def test_torchrun_s_environment_is_read() -> None:
    assert from_environment({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == (3, 4, 1)


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "-1", "LOCAL_RANK": "0"},
    ],
)
def test_an_environment_that_cannot_be_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"WORLD_SIZE.*torchrun"):
        from_environment(environment)
