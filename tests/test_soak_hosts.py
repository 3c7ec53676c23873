"""prep and train on several hosts, one of which is cut off in the middle: nothing is lost.

Run as root by `make soak`; the figures go to benchmarks/results/soak-hosts-*.json.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import Host, hosts, why_not
from prep_in_small_units import UNIT_SIZE
from test_resize import contents
from test_soak import save
from test_soak_train import rows, steps_done

from prep.sample import draw_sample
from train import checkpoint as checkpoints
from train.processes import PATIENCE

pytestmark = [pytest.mark.soak, pytest.mark.skipif(bool(why_not()), reason=why_not() or "none")]

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
CLASSES, PER_CLASS, BATCH, EPOCHS = 5, 60, 10, 2
STEPS = CLASSES * PER_CLASS // BATCH  # an epoch
PREP = [sys.executable, str(ROOT / "tests" / "prep_in_small_units.py")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "src"
    draw_sample(out, CLASSES, PER_CLASS, 10, 0, 2, lambda *_: None)
    return out


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, prepared by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    prep("resize", str(pictures), str(out), "--jobs=1")
    return out


@pytest.fixture(scope="module")
def beton(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("betons")
    prep("stats", str(alone / "train"), "--jobs=1")
    for split in ("train", "val"):
        prep("write-beton", str(alone / split), str(out / f"{split}.beton"), "--jobs=1")
    return out / "train.beton"


def prep(*arguments: str) -> None:
    subprocess.run([*PREP, *arguments], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def running(host: Host, log: Path, *line: str) -> Iterator[subprocess.Popen[bytes]]:
    process = host.start(*line, log=log, environment=ENVIRONMENT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def eventually(true: Callable[[], bool], log: Path, seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, log.read_text()[-5000:]
        time.sleep(0.02)


def test_a_dask_run_finishes_on_the_other_hosts(
    pictures: Path, alone: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log.txt"
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    with contextlib.ExitStack() as ending:
        first, *others = ending.enter_context(hosts(4))
        address = f"tcp://{first.address}:8786"
        ending.enter_context(
            running(
                first, log, *dask[:2], f"{dask[2]}scheduler", f"--host={address}", "--no-dashboard"
            )
        )
        for host in others:
            line = [*dask[:2], f"{dask[2]}worker", address, "--nthreads=1", "--no-dashboard"]
            ending.enter_context(running(host, log, *line))
        command = [*PREP, "resize", str(pictures), str(out), f"--dask={address}"]
        run = ending.enter_context(running(first, log, *command))
        journal = out / ".prep" / "train"
        eventually(lambda: len(list(journal.glob("*.parquet"))) >= 5, log)
        others[-1].cut_off()
        cut_off_at, started = len(list(journal.glob("*.parquet"))), time.monotonic()
        assert run.wait(300) == 0, log.read_text()[-5000:]
        took = time.monotonic() - started
    assert cut_off_at < CLASSES * PER_CLASS // UNIT_SIZE
    found, wanted = contents(out), contents(alone)
    wanted.pop("train.stats.npz", None)  # of another test
    assert found == wanted
    save(
        "hosts-prep",
        {
            "command": "prep resize --dask, scheduler and three workers, a network namespace each",
            "one worker's cable pulled after": f"{cut_off_at} units of train",
            "units of train": -(-CLASSES * PER_CLASS // UNIT_SIZE),
            "seconds from there to the end": round(took, 1),
            "bytes": "those of one process",
        },
    )


def torchrun(host: Host, first: Host) -> list[str]:
    meeting = f"is_host={int(host is first)},last_call_timeout=5"
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1"),
        *("--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=test"),
        *(f"--rdzv-endpoint={first.address}:29400", f"--rdzv-conf={meeting}"),
        *(f"--local-addr={host.address}", "-m", "train.cli"),
    ]


def train(beton: Path, out: Path) -> list[str]:
    line = ["run", "--beton", str(beton), "--out", str(out), "--recipe", "demo", "--device=cpu"]
    # Several processes on CPUs normalise their own parts of a batch: a network without.
    settings = {"network": "paper", "init": "he", "batch": BATCH, "epochs": EPOCHS, "width": 0.1}
    # At higher ones a difference in rounding grows: at 1e-5 to 8e-4 of a loss in two epochs.
    settings["learning_rate"] = 1e-6
    line += [f"--set={key}={value}" for key, value in settings.items()]
    return [*line, "--workers=1", "--checkpoint-steps=1", f"--keep={STEPS * EPOCHS}"]


def test_torchrun_goes_on_without_the_host_from_the_last_checkpoint(
    beton: Path, tmp_path: Path
) -> None:
    alone, out, log = tmp_path / "alone", tmp_path / "out", tmp_path / "log.txt"
    line = [sys.executable, "-m", "train.cli", *train(beton, alone)]
    subprocess.run(line, env=ENVIRONMENT, check=True, capture_output=True)
    with contextlib.ExitStack() as ending:
        first, second = ending.enter_context(hosts(2))
        command = train(beton, out)
        run = ending.enter_context(running(first, log, *torchrun(first, first), *command))
        lost = ending.enter_context(running(second, log, *torchrun(second, first), *command))
        eventually(lambda: steps_done(out) >= STEPS // 3, log)
        second.cut_off()
        cut_off_at, started = steps_done(out), time.monotonic()
        # Nothing under way to the lost host: gloo alone gives it up then.
        assert run.wait(PATIENCE.seconds + 120) == 0, log.read_text()[-5000:]
        took = time.monotonic() - started
        assert lost.wait(120) != 0
    said = log.read_text()
    assert "in each of 2 processes" in said
    assert re.search(r"train: process [01] of 2 has lost the others \(", said)
    assert 0.25 * STEPS <= cut_off_at <= 0.75 * STEPS
    assert checkpoints.load(out).step == checkpoints.load(alone).step == STEPS * EPOCHS
    mine, theirs = ([row for row in rows(path) if row["kind"] == "epoch"] for path in (out, alone))
    assert len(mine) == len(theirs) == EPOCHS
    for key in ("loss", "top1_error", "val_loss", "val_top1_error"):
        assert [row[key] for row in mine] == pytest.approx([row[key] for row in theirs], rel=1e-4)
    save(
        "hosts-train",
        {
            "command": "torchrun --nnodes=1:2 -m train.cli run, two network namespaces (gloo)",
            "the second host's cable pulled after": f"{cut_off_at} of {STEPS} steps of an epoch",
            "epochs": EPOCHS,
            "seconds from there to the end": round(took, 1),
            "losses and errors of the epochs": "those of one process, to 1e-4 of them",
        },
    )
