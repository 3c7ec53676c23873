"""docker/compose.yaml by a Docker daemon: prep by a Dask cluster of containers, train, TensorBoard.

Run by `make soak` where there are a daemon, its compose and the images; the figures go to
benchmarks/results/soak-compose*.json. Where there is no GPU, with compose.cpu.yaml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from test_resize import contents
from test_soak import save

from prep.sample import draw_sample

DOCKER = Path(__file__).resolve().parent.parent / "docker"
FILES = ["compose.yaml"] if torch.cuda.is_available() else ["compose.yaml", "compose.cpu.yaml"]
WORKERS = 2
RUNS = "http://127.0.0.1:6006/data/runs"  # TensorBoard's


def answers(*line: str) -> bool:
    found = shutil.which(line[0]) is not None
    return found and subprocess.run(line, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not (answers("docker", "compose", "version") and answers("docker", "info")),
        reason="no docker compose, or no daemon",
    ),
    pytest.mark.skipif(
        not answers("docker", "image", "inspect", "alexnet-prep", "alexnet-train"),
        reason="no images alexnet-prep and alexnet-train",
    ),
]

Compose = Callable[..., str]


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    """Runs a command of docker compose and returns what it printed; /data is `tmp_path`."""
    user = f"{os.getuid() or 1000}:{os.getgid() or 1000}"
    environment = os.environ | {"DATA": str(tmp_path), "USER_AND_GROUP": user}
    if os.getuid() == 0:
        os.chown(tmp_path, 1000, 1000)

    def run(*arguments: str) -> str:
        files = [f"--file={DOCKER / name}" for name in FILES]
        line = ["docker", "compose", *files, "--project-name", "alexnet-test"]
        done = subprocess.run(
            [*line, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-5000:]
        return done.stdout

    yield run
    run("down", "--timeout", "20")


def test_a_cluster_of_containers_gives_the_bytes_of_one_process(
    compose: Compose, tmp_path: Path
) -> None:
    draw_sample(tmp_path / "src", 5, 20, 10, 0, 2, lambda *_: None)
    compose("run", "--rm", "prep", "resize", "src", "alone", "--jobs", "1")
    compose("up", "--detach", "--scale", f"worker={WORKERS}", "scheduler", "worker")
    scheduler = "tcp://scheduler:8786"
    compose("run", "--rm", "prep", "resize", "src", "by-dask", "--dask", scheduler)
    said = compose("logs", "--no-color", "worker")
    assert said.count(f"Registered to: {'':6}{scheduler}") == WORKERS
    assert contents(tmp_path / "by-dask") == contents(tmp_path / "alone")
    save(
        "compose",
        {
            "command": "docker compose run prep resize --dask, compose.yaml",
            "versions": versions(),
            "workers": WORKERS,
            "bytes": "those of one process",
        },
    )


def test_tensorboard_shows_what_train_has_written(compose: Compose, tmp_path: Path) -> None:
    draw_sample(tmp_path / "src", 2, 60, 10, 0, 2, lambda *_: None)
    prep, train = (["run", "--rm", program] for program in ("prep", "train"))
    compose(*prep, "resize", "src", "out", "--jobs", "1")
    compose(*prep, "stats", "out/train", "--jobs", "1")
    compose(*prep, "write-beton", "out/train", "train.beton", "--jobs", "1")
    small = ["--recipe", "demo", "--set", "width=0.1", "--set", "epochs=2", "--workers", "1"]
    compose(*train, "run", "--beton", "train.beton", "--out", "runs/demo", *small)
    compose("up", "--detach", "tensorboard")
    until = time.monotonic() + 300
    while "demo" not in (shown := answer_of(RUNS)):
        assert time.monotonic() < until, shown + compose("logs", "tensorboard")
        time.sleep(1)
    save(
        "compose-train",
        {
            "command": "docker compose run prep ..., run train run, up tensorboard",
            "files": FILES,
            "versions": versions(),
            "TensorBoard shows": shown.strip(),
        },
    )


def answer_of(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError as error:  # it starts
        return str(error)


def versions() -> list[str]:
    asked = (
        ["docker", "version", "--format", "Docker {{.Server.Version}}"],
        ["docker", "compose", "version"],
    )
    return [subprocess.check_output(line, text=True).strip() for line in asked]
