"""Long checks, run by `make soak`: kills at random moments, and what the demo's network learned.

Their results go to benchmarks/results/soak-*.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import demo, shortcuts
from benchmarks.machine import machine
from prep.sample import draw_sample

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
KILLS, PARTIAL_AT_LEAST = 25, 20
LOST_AT_LEAST = 0.20  # of top-1 accuracy, on each kind of damaged copy
ACCURACY_AT_LEAST = 0.70  # top-1 on ten classes
SECONDS_AT_MOST = 240.0  # for the demo on two cores


def save(name: str, values: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    report = {"machine": machine()} | values
    (RESULTS / f"soak-{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of every file below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def test_resize_killed_at_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw_sample(source, 10, 250, 25, 0, None, lambda done, rejected=0: None)  # noqa: ARG005
    command = [str(Path(sys.executable).parent / "prep"), "resize", str(source)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    expected = digest(tmp_path / "whole")
    chance = random.Random(0)
    partial, units = 0, 10 * 250 // 256 + 1
    for attempt in range(KILLS):
        out = tmp_path / f"out{attempt}"
        rows = out / ".prep" / "train"
        process = subprocess.Popen(
            [*command, str(out)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        wanted = chance.randrange(1, units - 1)
        while process.poll() is None and len(list(rows.glob("*.jsonl"))) < wanted:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.2))
        alive = process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = len(list(rows.glob("*.jsonl")))
        partial += alive and 0 < done < units
        finished = {path: path.stat().st_mtime_ns for path in rows.glob("*.jsonl")}
        inodes = {path.name: path.stat().st_ino for path in _images_of(finished, out)}
        subprocess.run([*command, str(out)], check=True, capture_output=True)
        assert digest(out) == expected, f"attempt {attempt}, killed after {done} units"
        again = {path.name: path.stat().st_ino for path in (out / "train").rglob("*.JPEG")}
        assert all(again[name] == inode for name, inode in inodes.items()), "work was done twice"
        subprocess.run(["rm", "-r", str(out)], check=True)
    save("kills", {"command": "prep resize", "kills": KILLS, "with some units done": partial})
    assert partial >= PARTIAL_AT_LEAST


def _images_of(row_files: dict[Path, int], out: Path) -> list[Path]:
    """The prepared files that these units' rows name."""
    rows = [json.loads(line) for path in row_files for line in path.read_text().splitlines()]
    return [out / "train.partial" / row["name"] for row in rows if row["status"] == "ok"]


def test_the_demo_learns_shape_colour_and_texture_in_time(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo.main(out)
    report = json.loads((out / "demo.json").read_text())
    accuracies = shortcuts.accuracies(out / "run", out / "val.beton")
    save("demo", report | {"top-1 accuracy": accuracies})
    plain = accuracies.pop("as they are")
    assert plain >= ACCURACY_AT_LEAST
    for copy, accuracy in accuracies.items():
        assert plain - accuracy >= LOST_AT_LEAST, copy
    assert report["seconds"] <= SECONDS_AT_MOST
