"""What is measured on: machine, versions, commit, for the results' JSON; its cores and disk."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "pillow",
    "simplejpeg",
    "numba",
    "opencv-python-headless",
    "torch",
    "torchvision",
    "ffcv",
)


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def commit() -> str:
    """Of this code, "-dirty" where it has changed since; "" without its history, or without git."""
    if shutil.which("git") is None:
        return ""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def remove(*folders: Path) -> None:
    """Remove folders of many files, and wait until the file system has forgotten them.

    To make a file, ext4 looks for an inode that was not in use for five seconds: 0.1 ms and more
    where many files have just been deleted, as much as writing one.
    """
    for folder in folders:
        shutil.rmtree(folder)
    time.sleep(6)


@contextlib.contextmanager
def bound(cores: int) -> Iterator[None]:
    """Processes started within have only so many cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[-cores:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
