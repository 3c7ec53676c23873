"""`prep resize` at ImageNet's size: 1,281,167 pictures in 1000 class tars, killed halfway.

    python -m benchmarks.full_size PICTURES WORK [--share 1.0] [--unpacked] [--called TEXT]
        [--out results.json]

Archives true in structure are made in WORK/archives: ILSVRC2012_img_train.tar (a tar of a tar a
class, with the number of pictures that ImageNet has of it), ILSVRC2012_img_val.tar and a devkit.
The pictures are those below PICTURES, repeated as often as it takes. `prep resize` then runs on
them in place; it is killed (SIGKILL, workers too) when half of train's class tars are done, and
started again. Reported: rate at the start and at the end, the parent's and a worker's memory, and
how many of the finished units were done again. `--share` makes every class smaller, for a trial;
`--unpacked` takes the same pictures as class folders of hard links instead.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from benchmarks.machine import machine
from benchmarks.report import tell
from prep.handover import read_card
from prep.images import EXTENSIONS
from prep.manifest import Manifest, load
from prep.sources.listing import UNIT_SIZE

VAL = 50_000
POLL = 1.0  # seconds
KILL_AT = 0.5  # of train's class tars


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    tar.members.clear()  # type: ignore[attr-defined]


def build(pictures: Iterator[bytes], folder: Path, manifest: Manifest, share: float) -> int:
    """Write the archives; returns the number of training pictures."""
    folder.mkdir(parents=True)
    total = 0
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as train:
        for known in manifest.classes:
            inner = io.BytesIO()
            count = max(int(known.images["train"] * share), 1)
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for number in range(count):
                    add(tar, f"{known.folder}_{number}.JPEG", next(pictures))
            add(train, f"{known.folder}.tar", inner.getvalue())
            total += count
    ids = np.random.default_rng(0).permutation(len(manifest.classes)) + 1
    val = max(int(VAL * share), len(ids))
    truth = np.resize(ids, val)  # picture 1 is of the first wnid, 2 of the second, ...
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in range(1, val + 1):
            add(tar, f"ILSVRC2012_val_{number:08d}.JPEG", next(pictures))
    fields = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")]
    rows = [
        (float(i), known.folder, known.name, 0.0)
        for i, known in zip(ids, manifest.classes, strict=True)
    ]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, fields).reshape(-1, 1)})
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as kit:
        lines = "".join(f"{i}\n" for i in truth).encode()
        add(kit, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        add(kit, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", lines)
    return total


def unpack(paths: Iterator[Path], folder: Path, manifest: Manifest, share: float) -> int:
    """Link the pictures into class folders; returns the number of training pictures."""
    total = 0
    for known in manifest.classes:
        train = max(int(known.images["train"] * share), 1)
        for split, count in (("train", train), ("val", max(int(known.images["val"] * share), 1))):
            (folder / split / known.folder).mkdir(parents=True)
            for number in range(count):
                name = folder / split / known.folder / f"{known.folder}_{number}.JPEG"
                name.hardlink_to(next(paths))
        total += train
    return total


def pictures_below(folder: Path) -> Iterator[Path]:
    """Every picture, again and again."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    return itertools.cycle(paths)


class Watch(threading.Thread):
    """Samples a run: pictures done so far, memory of the parent and of its workers."""

    def __init__(self, process: subprocess.Popen[bytes], rows: Path, counts: list[int]) -> None:
        super().__init__(daemon=True)
        self._process, self._rows, self._counts = process, rows, counts
        self.done: list[tuple[float, int, int]] = []  # seconds, units, pictures
        self.units: dict[int, int] = {}  # that were done, and when: the time of its rows' file
        self.parent_peak = self.worker_private_peak = 0  # bytes

    def run(self) -> None:
        started = time.monotonic()
        while self._process.poll() is None:
            finished = self.finished()
            if self.done and len(finished) < self.done[-1][1]:
                break  # the run is over and clears its journal away
            self.units.update(finished)
            pictures = sum(self._counts[unit] for unit in finished)
            self.done.append((time.monotonic() - started, len(finished), pictures))
            self.parent_peak = max(self.parent_peak, status(self._process.pid, "VmHWM"))
            for pid in children(self._process.pid):
                self.worker_private_peak = max(self.worker_private_peak, private(pid))
            time.sleep(POLL)

    def finished(self) -> dict[int, int]:
        """The units whose rows are there, and the time of that file, ns."""
        units = {}
        with contextlib.suppress(FileNotFoundError):  # the run is over
            for path in self._rows.glob("0*.parquet"):
                units[int(path.name[:6])] = path.stat().st_mtime_ns
        return units


def rates(done: list[tuple[float, int]]) -> dict[str, float]:
    """Pictures/s in the first and the last tenth of some classes' (end in seconds, pictures)."""
    tenth = len(done) // 10
    if tenth < 2:
        return {}
    return {
        name: sum(count for _, count in part[1:]) / (part[-1][0] - part[0][0])
        for name, part in (("first tenth", done[:tenth]), ("last tenth", done[-tenth:]))
    }


def status(pid: int, field: str) -> int:
    """A figure of /proc/PID/status in bytes; 0 when the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(field + ":")), 0)


def private(pid: int) -> int:
    """Memory that no other process shares, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:
        return []


def run(archives: Path, out: Path, counts: list[int], kill: bool, options: list[str]) -> Watch:
    """One run of the command; with `kill` it is killed halfway."""
    program = str(Path(sys.executable).parent / "prep")
    command = [program, "resize", str(archives), str(out), *options]
    process = subprocess.Popen(command, start_new_session=True)
    watch = Watch(process, out / ".prep" / "train", counts)
    watch.start()
    while kill and process.poll() is None:
        if len(watch.units) >= KILL_AT * len(counts):
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(POLL / 4)
    code = process.wait()
    watch.join()
    if code != (-signal.SIGKILL if kill else 0):
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--unpacked", action="store_true")
    parser.add_argument("--called", help="what the pictures are; default: their folder's name")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    manifest = load("imagenet-1k")
    archives, out = arguments.work / "archives", arguments.work / "out"
    started = time.monotonic()
    if archives.exists() and (archives / "train").is_dir() != arguments.unpacked:
        raise SystemExit(f"{archives} is the other kind of source; give another WORK")
    if not archives.exists():
        paths = pictures_below(arguments.pictures)
        if arguments.unpacked:
            unpack(paths, archives, manifest, arguments.share)
        else:
            data = (path.read_bytes() for path in paths)
            build(data, archives, manifest, arguments.share)
    built = time.monotonic() - started
    of_classes = [
        max(int(known.images["train"] * arguments.share), 1) for known in manifest.classes
    ]
    counts = of_classes
    if arguments.unpacked:
        whole, rest = divmod(sum(of_classes), UNIT_SIZE)
        counts = [UNIT_SIZE] * whole + [rest] * bool(rest)
    options = ["--partial"]  # the archives are smaller than ImageNet's
    killed = run(archives, out, counts, kill=True, options=options)
    kept, killed_at = killed.finished(), time.time()
    started = time.monotonic()
    resumed = run(archives, out, counts, kill=False, options=options)
    seconds = killed.done[-1][0] + time.monotonic() - started
    card = read_card(out / "train.json")
    # A class's folder has changed last when its last picture was written.
    ends = sorted(
        ((out / "train" / known.folder).stat().st_mtime, count)
        for known, count in zip(manifest.classes, of_classes, strict=True)
    )
    before = [end for end in ends if end[0] < killed_at]
    rejected = sum(1 for _ in (out / "rejects.jsonl").open())
    report: dict[str, Any] = {
        "machine": machine(),
        "pictures": f"{arguments.called or arguments.pictures.name}, repeated",
        "train": sum(counts),
        "samples": card.samples,
        "pixels_id": card.pixels_id,
        "rejected": rejected,
        "from": "class folders of hard links" if arguments.unpacked else "archives of archives",
        "seconds to make the source": round(built),
        "seconds of both runs": round(seconds),
        "images/s until the kill": rates(before),
        "images/s after it": rates(ends[len(before) :]),
        "units done when killed": len(kept),
        "units": len(counts),
        "of them done again": sum(resumed.units.get(unit) != when for unit, when in kept.items()),
        "peak memory of the parent, MiB": max(killed.parent_peak, resumed.parent_peak) >> 20,
        "peak private memory of a worker, MiB": max(
            killed.worker_private_peak, resumed.worker_private_peak
        )
        >> 20,
    }
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
