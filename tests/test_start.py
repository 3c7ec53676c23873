"""What a run begins with. Resuming is tested in test_loop, with whole runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from prep.program import UserError
from train.device import choose_device
from train.options import cores
from train.processes import ALONE, Processes, own_device
from train.recipe import load_recipe
from train.start import check_graphs, check_last_batch
from train.state import RunSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {wanted}: .*--device cpu"):
        choose_device(wanted)
    assert choose_device(None) == choose_device("cpu") == CPU


def test_the_best_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(None) == torch.device("cuda")
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == torch.device("mps")


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The environment that torchrun makes for it; the devices that are made current."""
    chosen: list[torch.device] = []
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_every_process_of_a_machine_has_a_gpu_of_its_own(
    second_of_two: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    own = torch.device("cuda", 1)
    assert own_device(torch.device("cuda")) == own
    assert second_of_two == [own]
    assert own_device(CPU) == CPU


def test_a_process_without_a_gpu_is_told(
    second_of_two: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="there are 1; give torchrun --nproc-per-node 1"):
        own_device(torch.device("cuda"))
    assert second_of_two == []


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 12)
    found = {}
    for processes in ("1", "5", "100", "some"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        found[processes] = cores()
    assert found == {"1": 12, "5": 2, "100": 1, "some": 12}


@pytest.mark.parametrize(("theirs", "same"), [(5, True), (3, False), (8, False)])
def test_processes_know_whether_they_have_the_same_number(
    monkeypatch: pytest.MonkeyPatch, theirs: int, same: bool
) -> None:
    answers = iter([theirs, -theirs])  # of another process to the two questions
    monkeypatch.setattr(Processes, "largest", lambda _, number: max(number, next(answers)))
    assert Processes(0, 2).same(5) == same


def test_one_process_agrees_with_itself() -> None:
    assert ALONE.same(7)


# --------------------------------------------------------------------------- CUDA graphs


def with_graphs(path: Path, device: str, precision: str = "float32") -> RunSettings:
    return RunSettings(
        beton=path,
        val_beton=None,
        recipe=load_recipe("paper", [f"precision={precision}"]),
        out=path,
        resume="never",
        device=torch.device(device),
        workers=1,
        computed="graphs",
    )


@pytest.mark.parametrize(
    ("device", "world", "precision", "message"),
    [
        ("cpu", 1, "float32", "--graphs is for GPUs, not for cpu; give --compile"),
        ("cuda", 2, "float32", "--graphs is for one process, not for 2; give --compile"),
        ("cuda", 1, "fp16", "--graphs is not for fp16"),
    ],
)
def test_graphs_are_refused_where_they_do_not_go(
    tmp_path: Path, device: str, world: int, precision: str, message: str
) -> None:
    settings = with_graphs(tmp_path, device, precision)
    with pytest.raises(UserError, match=re.escape(message)):
        check_graphs(settings, Processes(0, world))
    check_graphs(dataclasses.replace(settings, computed="compiled"), Processes(0, world))


def test_graphs_go_in_one_process_on_a_gpu(tmp_path: Path) -> None:
    check_graphs(with_graphs(tmp_path, "cuda"), ALONE)


@pytest.mark.parametrize(
    ("network", "samples", "world", "pieces", "message"),
    [
        ("paper-batch-norm", 130, 4, 1, "leave 2 for a step, fewer than the 4 processes"),
        ("paper-batch-norm", 132, 4, 1, ""),
        ("paper-batch-norm", 129, 1, 1, ""),
        ("paper", 129, 4, 1, ""),
        ("paper-batch-norm", 132, 4, 2, "--accumulate 2 does not go with batch norm"),
        ("batch-norm", 129, 1, 1, "leave 1 for a step, too few for batch norm"),
    ],
)
def test_batch_norm_over_gpus_has_images_in_each_process(
    tmp_path: Path, network: str, samples: int, world: int, pieces: int, message: str
) -> None:
    """torch's SyncBatchNorm of a process without any takes them for numbers of another kind."""
    recipe = load_recipe("demo", [f"network={network}", "batch=128"])
    cuda = torch.device("cuda")
    settings = RunSettings(tmp_path, None, recipe, tmp_path, "never", cuda, 1, accumulate=pieces)
    if not message:
        check_last_batch(settings, samples, Processes(0, world))
        return
    with pytest.raises(UserError, match=message):
        check_last_batch(settings, samples, Processes(0, world))
