"""The images of docker/Dockerfile: built by docker/build.sh, weighed, then run by docker/demo.sh.

    python -m benchmarks.images WORK [prep] [train] [test] [--epochs 6]
        [--out benchmarks/results/images.json]

As root, with buildah and debootstrap. Where a Docker daemon runs, it is handed the images, and runs
them; `test` also runs its tests. WORK, which is made, gets the whole logs and the demo's folder.
Targets that are not named, and with --epochs 0 the demo, keep what --out told of them.
BUILDAH_ARGUMENTS and STORAGE_DRIVER are those of docker/build.sh. An image's bytes are those of its
files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, machine
from benchmarks.report import tell

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs", **os.environ}
DOCKER = (
    "docker info >/dev/null 2>&1 && docker version --format 'Docker {{.Server.Version}}' || true"
)
LAST = 3  # lines of a log that are kept
WHEEL = re.compile(r" (\d+) \S+ +\d+ +\S+ \S*?(ffcv-[\w.-]+\.whl)$", re.MULTILINE)  # of `ls -l`


def main(work: Path, targets: list[str], epochs: int, out: Path) -> None:
    work.mkdir(parents=True)
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    docker, engine = answer("sh", "-c", DOCKER), answer("buildah", "--version").partition(" (")[0]
    built, weights = found.get("build.sh", {}), found.get("bytes", {})
    for target in targets:
        log = work / f"{target}.log"
        seconds = shell(log, ROOT / "docker" / "build.sh", target)
        text = log.read_text(encoding="utf-8")
        built[target] = {
            "commit": commit(),
            "seconds": round(seconds),
            "last lines": text.splitlines()[-LAST:],
        }
        weights[f"alexnet-{target}"] = weight(f"localhost/alexnet-{target}")
        weights |= {name: int(size) for size, name in WHEEL.findall(text)}
        if docker:
            places = (f"localhost/alexnet-{target}", f"docker-daemon:alexnet-{target}:latest")
            shell(work / f"{target}.push.log", "buildah", "push", *places)
    storage = ENVIRONMENT["STORAGE_DRIVER"]
    found["machine"] = {key: machine()[key] for key in ("cpu", "cores", "date")}
    found["built by"] = f"{engine}, chroot isolation, {storage} storage, base by debootstrap"
    found |= {"bytes": weights, "build.sh": built}
    if "test" in targets:
        found["make check test"] = {"run by": f"{docker or engine}, as user 1000"} | tests(
            work / "test.run.log", bool(docker)
        )
    if epochs:
        seconds = shell(work / "demo.log", ROOT / "docker" / "demo.sh", work / "data", epochs)
        found["demo.sh"] = {
            "run by": f"{docker or engine}, as user 1000",
            "commit": commit(),
            "seconds": round(seconds),
            "epochs": epochs,
            "resized by a Dask cluster of containers": "the bytes of one process",  # diff says so
            "last lines": commands((work / "demo.log").read_text(encoding="utf-8")),
        }
    tell(found, out)


def tests(log: Path, docker: bool) -> dict[str, Any]:
    """What the image `test` says of itself: its command, in a container of it."""
    if docker:
        seconds = shell(log, "docker", "run", "--rm", "--network", "host", "alexnet-test")
    else:
        container = answer("buildah", "from", "localhost/alexnet-test")
        try:
            seconds = shell(log, "buildah", "run", container, "--", "make", "check", "test")
        finally:
            answer("buildah", "rm", container)
    last = log.read_text(encoding="utf-8").splitlines()[-1]
    return {"commit": commit(), "seconds": round(seconds), "last line": last}


def commands(log: str) -> dict[str, list[str]]:
    """What the commands that `set -x` shows have said last; those of the background say nothing."""
    said: dict[str, list[str]] = {}
    command = ""
    for line in map(str.strip, log.splitlines()):
        if line.startswith("+ image ") and " dask " not in line:
            command = " ".join(line.split()[3:])
        elif command and line and not re.match(r"\+ |\[\d+\]", line):  # [1]: a job has ended
            said[command] = [*said.get(command, []), line][-LAST:]
    return said


def weight(image: str) -> int:
    """Bytes of an image's files, as `du --bytes` counts them."""
    container = answer("buildah", "from", image)
    try:
        place = answer("buildah", "mount", container)
        return int(answer("du", "--summarize", "--bytes", place).split()[0])
    finally:
        answer("buildah", "rm", container)


def answer(*line: str) -> str:
    return subprocess.check_output(line, env=ENVIRONMENT, text=True).strip()


def shell(log: Path, *line: object) -> float:
    """Run a command, all it says to `log`; returns its seconds, or ends with its last lines."""
    print(*line, flush=True)
    started = time.monotonic()
    with log.open("wb") as file:
        words = [str(word) for word in line]
        code = subprocess.call(words, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT)
    if code != 0:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])
        sys.exit(f"{last}\nimages: {words[0]} failed with exit code {code}; see {log}")
    return time.monotonic() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/images.json")
    values = parser.parse_args()
    main(values.work.resolve(), values.targets, values.epochs, values.out)
