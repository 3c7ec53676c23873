"""Where a step's time goes: torch's profiler over steps of one batch that lies on the device.

    python -m benchmarks.profile_step BETON [--batch 128] [--precision float32] [--compile]
        [--recipe paper] [--set width=0.25] [--steps 10] [--most 15]
        [--out benchmarks/results/profile-step.json]

Told of every operation, with the shapes that it is given: its own time in a step, on the device,
what it calls not counted, and its share of all operations' time. Shapes are [images, maps, rows,
columns]; a matrix is [images, units] or [units, units].
"""

from __future__ import annotations

import argparse
import itertools
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_step import device_words
from benchmarks.machine import commit, machine
from benchmarks.report import tell
from train import bench, start
from train.device import choose_device
from train.recipe import load_recipe
from train.screen import Screen
from train.state import RunSettings


def operations(work: bench.Work, steps: int, device: torch.device) -> list[dict[str, Any]]:
    """The longest first; the profiler sees `steps` steps, after some that do not count."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with closing(work.step()) as endless:
        for _ in itertools.islice(endless, bench.BEFORE):
            pass
        with profile(activities=activities, record_shapes=True) as profiler:
            for _ in itertools.islice(endless, steps):
                pass
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    on = f"self_{device.type}_time_total" if device.type == "cpu" else "self_device_time_total"
    found = profiler.key_averages(group_by_input_shape=True)
    times = [(getattr(each, on), each) for each in found]
    total = sum(time for time, _ in times)
    rows = [
        {
            "operation": each.key,
            "shapes": ", ".join("x".join(map(str, shape)) for shape in each.input_shapes if shape),
            "a step": round(each.count / steps, 1),
            "ms a step": round(time / steps / 1e3, 3),
            "share": round(time / total, 4),
        }
        for time, each in times
        if time > 0
    ]
    return sorted(rows, key=lambda row: -row["ms a step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("beton", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--set", dest="values", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=machine()["cores"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--most", type=int, default=15, help="operations that are told")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.workers)
    recipe, device = load_recipe(arguments.recipe, arguments.values), choose_device(None)
    settings = RunSettings(
        arguments.beton, None, recipe, Path(), "never", device, arguments.workers
    )
    way = bench.Way(
        arguments.batch, arguments.precision, "compiled" if arguments.compile else "eager"
    )
    data = start.open_train_data(arguments.beton)
    with Screen() as screen:
        update, work = bench.prepared(settings, data, way, screen)
        rows = operations(work, arguments.steps, device)
    report = {
        "machine": machine() | device_words(device),
        "commit": commit(),
        "recipe": [arguments.recipe, *arguments.values],
        "batch": way.batch,
        "precision": way.precision,
        "network": update.computed,
        "ms a step": round(sum(row["ms a step"] for row in rows), 3),
        "operations": rows[: arguments.most],
    }
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
