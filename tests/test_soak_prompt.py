"""What cannot work on a cluster ends with a line within half a minute, the start included.

Run as root by `make soak`; the figures go to benchmarks/results/soak-prompt.json.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_cluster import free_port, running, wait_for_workers, worker
from test_resize import tiny_source
from test_soak import save

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="a mount of one's own is for root"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
]

PROMPT = 30.0  # seconds
ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "--max-restarts=3"]


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, float]]:
    """Seconds by what was wrong; a file of results at the end."""
    seconds: dict[str, float] = {}
    yield seconds
    save("prompt", {"seconds until the command has ended": seconds, "at most": PROMPT})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return tiny_source(tmp_path / "src")


def seconds_and_words(*line: str) -> tuple[float, str]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *line], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    return round(time.monotonic() - started, 1), done.stderr


def resized(pictures: Path, address: str) -> tuple[float, str]:
    out = pictures.parent / "out"
    return seconds_and_words(
        "-m", "prep.cli", "resize", str(pictures), str(out), "--size=32", f"--dask={address}"
    )


@contextlib.contextmanager
def scheduler() -> Iterator[str]:
    port = free_port()
    line = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with running(*line):
        yield f"tcp://127.0.0.1:{port}"


def test_a_scheduler_that_is_not_there(told: dict[str, float], pictures: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    seconds, said = resized(pictures, address)
    assert f"no Dask scheduler answers at {address}" in said
    told["nothing listens at --dask"] = seconds
    assert seconds < PROMPT


def test_a_scheduler_that_says_nothing(told: dict[str, float], pictures: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        seconds, said = resized(pictures, address)
    assert f"no Dask scheduler answers at {address}" in said
    told["what listens at --dask says nothing"] = seconds
    assert seconds < PROMPT


def test_a_worker_of_another_version(
    told: dict[str, float], pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "prep", other / "prep")
    with (other / "prep" / "resize.py").open("a") as code:
        code.write("# of another day\n")
    with scheduler() as address, worker(address, other):
        wait_for_workers(address, 1)
        seconds, said = resized(pictures, address)
    assert "this command has prep" in said
    assert "install the same there" in said
    told["a Dask worker has another version"] = seconds
    assert seconds < PROMPT


def test_a_worker_without_the_mount(told: dict[str, float], pictures: Path) -> None:
    with scheduler() as address:
        line = f"mount -t tmpfs none {pictures} && exec {sys.executable} -m "
        line += "distributed.cli.dask_worker"
        blind = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{line} {address} --nthreads 1 --no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            wait_for_workers(address, 1)
            seconds, said = resized(pictures, address)
        finally:
            blind.terminate()
            blind.wait(60)
    assert f"does not see {pictures}" in said
    assert "mount it there under the same path" in said
    told["a Dask worker does not see SRC"] = seconds
    assert seconds < PROMPT


@pytest.mark.parametrize("by", ["alone", "torchrun"])
@pytest.mark.parametrize("wrong", ["no GPU", "no mount"])
def test_training_without_what_it_needs(
    told: dict[str, float], betons: Path, tmp_path: Path, by: str, wrong: str
) -> None:
    beton = betons / "train.beton" if wrong == "no GPU" else Path("/nowhere/train.beton")
    command = ["-m", "train.cli", "run", "--beton", str(beton), "--out", str(tmp_path / "run")]
    command += ["--recipe", "demo"] + (["--device", "cuda"] if wrong == "no GPU" else [])
    seconds, said = seconds_and_words(*(TORCHRUN if by == "torchrun" else []), *command)
    wanted = "finds no such device here" if wrong == "no GPU" else f"{beton} does not exist"
    assert wanted in said
    told[f"train, {wrong}, {by}"] = seconds
    assert seconds < PROMPT
