"""The loader over a thousand short epochs: no thread, file handle or memory is left behind."""

from __future__ import annotations

import gc
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.machine import machine
from train.augment import Augment
from train.augmentation import Augmentation
from train.dataset import open_dataset, training_statistics
from train.loader import Batches

pytestmark = pytest.mark.soak

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
EPOCHS, SETTLED = 1000, 100
GROWTH_AT_MOST = 2.0  # MiB of memory, from epoch 2 SETTLED on


def memory() -> float:
    """Of this process, MiB in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def test_a_thousand_epochs_whole_and_broken_off_leave_nothing(betons: Path) -> None:
    dataset = open_dataset(betons / "train.beton")
    statistics = training_statistics(dataset)
    augment = Augment(Augmentation(224, mirror=True, colour_noise=0.1, seed=0), statistics)
    batches = Batches(dataset, 4, 2, augment)
    figures = []
    for epoch in range(EPOCHS):
        for step, _ in enumerate(batches.epoch(0, epoch)):
            if step == epoch % 6:  # five batches: an epoch in six is whole
                break
        if epoch % SETTLED == SETTLED - 1:
            gc.collect()
            handles = len(list(Path("/proc/self/fd").iterdir()))
            figures.append([epoch + 1, threading.active_count(), handles, round(memory(), 1)])
    settled = np.array(figures)
    report = {
        "machine": machine(),
        "epochs": EPOCHS,
        "epoch, threads, file handles, MiB": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak-loader.json").write_text(json.dumps(report, indent=1) + "\n")
    assert len(set(settled[:, 1])) == 1, "threads"
    assert len(set(settled[:, 2])) == 1, "file handles"
    assert settled[-1, 3] - settled[1, 3] < GROWTH_AT_MOST
