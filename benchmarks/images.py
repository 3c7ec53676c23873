"""The images of docker/Dockerfile: built by docker/build.sh, weighed, then run by docker/demo.sh.

    python -m benchmarks.images WORK [--targets prep train test] [--epochs 6]
        [--out benchmarks/results/images.json]

As root, with buildah and debootstrap; by Docker where its daemon runs: the images are handed to it.
WORK, new or empty, gets the whole logs and the demo's folder, which the containers see as /data.
BUILDAH_ARGUMENTS and STORAGE_DRIVER are those of docker/build.sh. `prep` and `train` are needed for
the demo; without one of them there is none, and what `--out` tells of it stays as it was, as does
what it tells of targets that are not named.

An image's bytes are those of its files; the FFCV wheel's are what docker/ffcv-wheel.sh lists.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.report import tell

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs", **os.environ}
LAST = 3  # lines of a log that are kept
WHEEL = re.compile(r" (\d+) \S+ +\d+ +\S+ \S*?(ffcv-[\w.-]+\.whl)$", re.MULTILINE)  # of `ls -l`


def main(work: Path, targets: list[str], epochs: int, out: Path) -> None:
    if work.exists() and any(work.iterdir()):
        sys.exit(f"images: {work} is not empty; give another folder")
    work.mkdir(parents=True, exist_ok=True)
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    docker = answer("docker", "version", "--format", "Docker {{.Server.Version}}")
    here = {key: machine()[key] for key in ("cpu", "cores", "date")}
    engine = answer("buildah", "--version").partition(" (")[0]
    built, weights = found.get("build.sh", {}), found.get("bytes", {})
    for target in targets:
        log = work / f"{target}.log"
        seconds = shell(log, ROOT / "docker" / "build.sh", target)
        text = log.read_text(encoding="utf-8")
        built[target] = {
            "commit": answer("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
            "seconds": round(seconds),
            "last lines": text.splitlines()[-LAST:],
        }
        weights[f"alexnet-{target}"] = weight(f"localhost/alexnet-{target}")
        weights |= {name: int(size) for size, name in WHEEL.findall(text)}
        if docker:
            push = ("buildah", "push", f"localhost/alexnet-{target}")
            shell(work / f"{target}.push.log", *push, f"docker-daemon:alexnet-{target}:latest")
    report = {
        "machine": here,
        "built by": f"{engine}, chroot isolation, {ENVIRONMENT['STORAGE_DRIVER']} storage, "
        "base by debootstrap",
        "bytes": weights,
        "build.sh": built,
    }
    if {"prep", "train"} <= set(targets):
        seconds = shell(work / "demo.log", ROOT / "docker" / "demo.sh", work / "data", epochs)
        demo = {
            "run by": f"{docker or engine}, as user 1000",
            "seconds": round(seconds),
            "train run": f"recipe demo, {epochs} epochs",
            "resized by a Dask cluster of containers": "the bytes of one process (diff)",
            **commands((work / "demo.log").read_text(encoding="utf-8")),
        }
        report["demo.sh"] = demo
    elif "demo.sh" in found:
        report["demo.sh"] = found["demo.sh"]
    tell(report, out)


def commands(log: str) -> dict[str, list[str]]:
    """What the commands that `set -x` shows have said last, by program and command."""
    said: dict[str, list[str]] = {}
    name = ""
    for line in log.splitlines():
        if line.startswith("+ image "):
            name = " ".join(line.split()[3:5])
        elif name and line.strip() and not line.startswith("+ "):
            said[name] = [*said.get(name, []), line.strip()][-LAST:]
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
    """What a command says; nothing if there is no such command, or it fails."""
    if shutil.which(line[0]) is None:
        return ""
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


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
    parser.add_argument("--targets", nargs="+", default=["prep", "train", "test"])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/images.json")
    values = parser.parse_args()
    main(values.work.resolve(), values.targets, values.epochs, values.out)
