"""docker/slurm/ on a real SLURM of one node: jobs that are preempted end as undisturbed ones do.

Run as root by `make soak`; the figures go to benchmarks/results/soak-slurm-*.json.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from prep_in_small_units import UNIT_SIZE
from slurm_cluster import Slurm, missing_programs, slurm
from test_resize import contents
from test_soak import save
from test_soak_train import rows, steps_done

from prep.cluster import CONNECT
from prep.sample import draw_sample
from prep.stats import measure
from prep.write import write_beton
from train import checkpoint as checkpoints

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="a SLURM of its own has to be started by root"),
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"{', '.join(missing_programs())} missing: Debian's slurm-wlm and munge",
    ),
]

ROOT = Path(__file__).resolve().parent.parent
PREP = ROOT / "tests" / "prep_in_small_units.py"
SCRIPTS = ROOT / "docker" / "slurm"
CLASSES, PER_CLASS, BATCH, EPOCHS = 5, 60, 4, 2
STEPS = CLASSES * PER_CLASS // BATCH  # an epoch
PROMPT = 30.0  # seconds within which a job that cannot work must say so
URGENT = "a job of a partition with precedence, GraceTime=60"
TIME, AHEAD, CHECKED = 300, 60, 30  # seconds: of --time, of --signal, how often SLURM looks


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    small_units = folder / "programs" / "prep"
    small_units.parent.mkdir()
    small_units.write_text(f'#!/bin/sh\nexec {sys.executable} {PREP} "$@"\n')
    small_units.chmod(0o755)
    places = [small_units.parent, Path(sys.executable).parent, os.environ["PATH"]]
    programs = os.pathsep.join(map(str, places))
    with slurm(
        folder / "files",
        os.environ | {"PATH": programs, "PYTHONPATH": str(ROOT)},
    ) as started:
        yield started


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "src"
    draw_sample(out, CLASSES, PER_CLASS, 10, 0, 2, lambda *_: None)
    return out


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, prepared by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    line = [sys.executable, PREP, "resize", pictures, out, "--jobs=1"]
    subprocess.run(line, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def beton(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = Path(shutil.copytree(alone, tmp_path_factory.mktemp("betons") / "out"))
    measure(out / "train", jobs=1)
    for split in ("train", "val"):
        write_beton(out / split, out.parent / f"{split}.beton", "jpg", jobs=1)
    return out.parent / "train.beton"


def eventually(true: Callable[[], bool], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


# --------------------------------------------------------------------------- prep


def test_an_array_of_parts_one_requeued_then_finished_gives_the_bytes_of_one_run(
    cluster: Slurm, pictures: Path, alone: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "%A-%a.txt"
    script = ["--cpus-per-task=1", "--mem-per-cpu=100", f"--output={log}"]
    script += ["--open-mode=append", str(SCRIPTS / "prep-array.sbatch")]
    what = [str(pictures), str(out)]
    array = cluster.submit("--array=1-3", *script, *what)
    last = cluster.submit(f"--dependency=afterany:{array}", *script, *what)
    eventually(lambda: "RUNNING" in cluster.states(f"{array}_2"))
    eventually(lambda: len(list((out / ".prep" / "train").glob("*.parquet"))) >= 4)
    cluster.command("scontrol", "requeue", f"{array}_2")
    cluster.begin_again(f"{array}_2")
    assert cluster.wait(array) == {"COMPLETED"}
    assert cluster.wait(last) == {"COMPLETED"}
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.txt")}
    assert sum("finishes" in text for text in logs.values()) == 3, logs
    assert "0 of 38 units left by all parts" in "".join(logs.values())
    assert contents(out) == contents(alone)
    save(
        "slurm-prep-array",
        {
            "command": "sbatch --array=1-3 prep-array.sbatch, then without --array",
            "SLURM": cluster.command("sinfo", "--version"),
            "pictures": CLASSES * (PER_CLASS + 10),
            "units of train": -(-CLASSES * PER_CLASS // UNIT_SIZE),
            "tasks requeued while they ran": 1,
            "bytes": "those of one process",
        },
    )


@pytest.mark.parametrize("disturbed", [False, True], ids=["undisturbed", "preemption"])
def test_a_dask_cluster_in_an_allocation_gives_the_bytes_of_one_run(
    cluster: Slurm, pictures: Path, alone: Path, tmp_path: Path, disturbed: bool
) -> None:
    out, log = tmp_path / "out", tmp_path / "log.txt"
    workers = 1 if disturbed else 3  # one is not done before it is preempted
    script = ["--nodes=1", f"--ntasks-per-node={workers}", "--mem-per-cpu=1G", f"--output={log}"]
    job = cluster.submit(*script, str(SCRIPTS / "prep-dask.sbatch"), str(pictures), str(out))
    if disturbed:
        eventually(lambda: len(list((out / ".prep" / "train").glob("*.parquet"))) >= 1)
        cluster.preempt()
        cluster.begin_again(job)
    assert cluster.wait(job) == {"COMPLETED"}, log.read_text()
    assert int(cluster.about(job)["Restarts"]) == disturbed
    assert contents(out) == contents(alone)
    save(
        f"slurm-prep-dask{'-preemption' if disturbed else ''}",
        {
            "command": f"sbatch --ntasks-per-node={workers} prep-dask.sbatch",
            "SLURM": cluster.command("sinfo", "--version"),
            "preempted by": URGENT if disturbed else "nothing",
            "units of train": -(-CLASSES * PER_CLASS // UNIT_SIZE),
            "bytes": "those of one process",
        },
    )


# --------------------------------------------------------------------------- train


def submit_training(cluster: Slurm, beton: Path, out: Path, *options: str) -> str:
    script = ["--gpus-per-node=0", "--cpus-per-task=1", f"--output={out}.txt", *options]
    command = ["--beton", str(beton), "--out", str(out), "--recipe", "demo", "--device", "cpu"]
    settings = {"width": 0.1, "batch": BATCH, "epochs": EPOCHS}
    command += [f"--set={key}={value}" for key, value in settings.items()]
    command += ["--workers", "1", "--checkpoint-steps", "1", "--keep", str(STEPS * EPOCHS)]
    return cluster.submit(*script, str(SCRIPTS / "train.sbatch"), *command)


@pytest.fixture(scope="module")
def undisturbed(cluster: Slurm, beton: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    job = submit_training(cluster, beton, out, "--export=ALL,PROCESSES=2")
    assert cluster.wait(job) == {"COMPLETED"}, Path(f"{out}.txt").read_text()
    return out


def assert_same_run(one: Path, two: Path) -> None:
    first, second = checkpoints.load(one), checkpoints.load(two)
    assert first.step == second.step == STEPS * EPOCHS
    assert all(torch.equal(first.network[name], second.network[name]) for name in first.network)
    assert rows(one) == rows(two)


def losses(run: Path) -> dict[str, list[float]]:
    epochs = [row for row in rows(run) if row["kind"] == "epoch"]
    return {name: [row[name] for row in epochs] for name in ("loss", "val_loss")}


def held_until_told(cluster: Slurm, job: str, started: float) -> None:
    """The job's step stands still until SLURM has told the script that its time is nearly up."""
    cluster.command("scancel", "--signal=STOP", f"{job}.0")
    assert time.monotonic() < started + TIME - AHEAD - CHECKED, "it may have been told before"
    time.sleep(max(0.0, started + TIME - AHEAD + 2 - time.monotonic()))
    cluster.command("scancel", "--signal=CONT", f"{job}.0")


@pytest.mark.parametrize("told", ["requeue", "signal", "preemption", "time-limit"])
def test_a_training_that_is_preempted_resumes_by_itself_with_the_same_losses(
    cluster: Slurm, beton: Path, undisturbed: Path, tmp_path: Path, told: str
) -> None:
    out = tmp_path / "run"
    limit = [f"--time={TIME // 60}", f"--signal=B:USR1@{AHEAD}"] if told == "time-limit" else []
    job = submit_training(cluster, beton, out, "--export=ALL,PROCESSES=2", *limit)
    eventually(lambda: cluster.states(job) == {"RUNNING"})
    started = time.monotonic()
    eventually(lambda: steps_done(out) >= STEPS // 3)
    if told == "requeue":
        how = "scontrol requeue"
        cluster.command("scontrol", "requeue", job)
    elif told == "signal":  # what --signal=B:USR1@120 does two minutes before the end
        how = "USR1 to the batch script"
        cluster.command("scancel", "--batch", "--signal=USR1", job)
    elif told == "preemption":
        how = URGENT
        cluster.preempt()
    else:
        how = f"SLURM's own USR1 before its time limit: --time={TIME // 60} --signal=B:USR1@{AHEAD}"
        held_until_told(cluster, job, started)
    cluster.begin_again(job)
    if told == "time-limit":  # once is enough, however slow the machine
        cluster.command("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    stopped_at = checkpoints.load(out).step
    assert 0.25 * STEPS <= stopped_at <= 0.75 * STEPS
    assert stopped_at == steps_done(out)
    assert cluster.wait(job) == {"COMPLETED"}, Path(f"{out}.txt").read_text()
    assert int(cluster.about(job)["Restarts"]) == 1
    said = Path(f"{out}.txt").read_text()
    assert said.count("SIGTERM: checkpoint") >= 1, said
    assert_same_run(undisturbed, out)
    save(
        f"slurm-train-{told}",
        {
            "command": "sbatch train.sbatch, two processes (gloo), one node",
            "SLURM": cluster.command("sinfo", "--version"),
            "preempted by": how,
            "at step": stopped_at,
            "steps an epoch": STEPS,
            "steps in all": STEPS * EPOCHS,
            "losses of the epochs": losses(out),
            "of the undisturbed run": losses(undisturbed),
            "losses, errors and weights": "those of an undisturbed run, bit for bit",
        },
    )


# --------------------------------------------------------------------------- what cannot work


def test_a_gpu_that_is_not_there_is_told_at_once(
    cluster: Slurm, beton: Path, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    log, started = tmp_path / "log.txt", time.monotonic()
    script = ["--gpus-per-node=0", "--cpus-per-task=1", f"--output={log}"]
    command = ["--beton", str(beton), "--out", str(tmp_path / "run"), "--device", "cuda"]
    job = cluster.submit(*script, str(SCRIPTS / "train.sbatch"), *command)
    assert cluster.wait(job) == {"FAILED"}
    assert time.monotonic() - started < PROMPT
    assert "--device cuda: torch" in log.read_text()
    assert "finds no such device here" in log.read_text()


def test_a_scheduler_that_is_not_there_is_told_in_time() -> None:
    assert CONNECT < PROMPT
