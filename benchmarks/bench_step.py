"""Rates of training: the loader, a step, both; beside them a write-up's step and the arithmetic.

    python -m benchmarks.bench_step [BETON] [--batch 128 1024] [--precision float32 tf32 bf16]
        [--compile] [--graphs] [--recipe paper] [--set width=0.25] [--rounds 7] [--seconds 5]
        [--out benchmarks/results/step.json]

Without BETON, 2,000 pictures of `prep sample` are drawn. What `train bench` measures, and in the
same rounds a step as AlexNet's write-ups have it: one tower, torch.nn's layers with
LocalResponseNorm and Dropout, eager float32 in NCHW as torch's defaults compute it, `loss.item()`
after every step, images that lie on the device as float32.

The floor is what the device cannot go below: the step's multiplications over the rate at which it
multiplies large matrices of that precision, or, if that takes longer, the bytes that the update of
the weights alone moves over the rate at which it copies.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.bench_loader import draw_betons
from benchmarks.machine import commit, machine
from benchmarks.report import tell
from train import bench, networks, start
from train.device import choose_device
from train.networks.layers import narrowed
from train.recipe import Recipe, load_recipe
from train.screen import Screen
from train.state import RunSettings
from train.step import AUTOCAST

DRAWN = "prep sample"
WRITE_UP = "a write-up's step"
# Of every float32 parameter: read forward and backward; its gradient written and read; velocity
# and weight read and written.
BYTES_A_PARAMETER = 4 * 8


def write_up(classes: int, width: float) -> nn.Module:
    """Single tower at 227 with LRN, as the recipe steplr-100 names it; width: of hidden layers."""
    c1, c2, c3, units = (narrowed(size, width) for size in (96, 256, 384, 4096))
    norm = functools.partial(nn.LocalResponseNorm, 5, alpha=5e-4, beta=0.75, k=2.0)
    pool = functools.partial(nn.MaxPool2d, 3, 2)
    return nn.Sequential(
        *(nn.Conv2d(3, c1, 11, 4), nn.ReLU(), norm(), pool()),
        *(nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), norm(), pool()),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c3, c3, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c3, c2, 3, padding=1), nn.ReLU(), pool(), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(c2 * 36, units), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, classes)),
    )


def write_up_steps(
    recipe: Recipe, classes: int, batch: int, device: torch.device
) -> Generator[int, None, None]:
    network = write_up(classes, recipe.width).to(device)
    sgd = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch, 3, 227, 227, device=device)
    labels = torch.randint(classes, (batch,), device=device)
    ours = torch.backends.cudnn.allow_tf32
    while True:
        torch.backends.cudnn.allow_tf32 = True  # torch's default
        sgd.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        loss.item()
        torch.backends.cudnn.allow_tf32 = ours
        yield batch


# --------------------------------------------------------------------------- the floor


def seconds_of(work: Callable[[], object], device: torch.device, least: float = 0.5) -> float:
    """The fastest of several calls, which together take `least` seconds and more."""
    fastest, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < least:
        passed = bench.moments(device)
        work()
        fastest = min(fastest, passed())
    return fastest


def matrix_rate(precision: str, device: torch.device) -> float:
    """Operations a second, two a multiplication with its addition, of large square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    dtype = AUTOCAST.get(precision, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return 2 * side**3 / seconds_of(lambda: a @ b, device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of copying a GiB."""
    source = torch.zeros(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)


def operations(network: nn.Module, crop: int) -> int:
    """Of an image's step, on the meta device: two a multiplication with its addition.

    torch's own FlopCounterMode counts the weights' gradient of a grouped convolution once for
    every group.
    """
    layers: list[int] = []

    def count(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        layers.append(2 * layer.get_parameter("weight")[0].numel() * out.numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, crop, crop))
    # Backward as much for the weights and for what the layer is given, but not for the images.
    return 3 * sum(layers) - layers[0]


def floor(recipe: Recipe, classes: int, way: bench.Way, device: torch.device) -> dict[str, Any]:
    """What a step takes at least."""
    with torch.device("meta"):
        network = networks.without_weights(recipe, classes)
        done = way.batch * operations(network, recipe.crop)
    moved = BYTES_A_PARAMETER * sum(parameter.numel() for parameter in network.parameters())
    rate, copied = matrix_rate(way.precision, device), copy_rate(device)
    least = max(done / rate, moved / copied)
    return {
        "operations, 1e9": round(done / 1e9, 2),
        "matrices, 1e12 operations/s": round(rate / 1e12, 3),
        "bytes of the update, 1e9": round(moved / 1e9, 3),
        "copies, 1e9 bytes/s": round(copied / 1e9, 1),
        "images/s at most": round(way.batch / least, 1),
    }


# --------------------------------------------------------------------------- the report


def device_words(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(asked, capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name(device),
        "driver": driver.stdout.strip().splitlines()[0] if driver.returncode == 0 else "",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("beton", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--set", dest="values", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=machine()["cores"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--called", help="what BETON holds, for the report; default: its name")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measured(arguments.beton or draw_betons(Path(folder))[0], arguments)
    report["beton"] = arguments.called or (arguments.beton.name if arguments.beton else DRAWN)
    tell(report, arguments.out)


def measured(beton: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(arguments.workers)
    recipe = load_recipe(arguments.recipe, arguments.values)
    device = choose_device(None)
    settings = RunSettings(beton, None, recipe, Path(), "never", device, arguments.workers)
    data = start.open_train_data(beton)
    classes = len(data.trained_on.wnids)
    ways = bench.ways(arguments.batch, arguments.precision, arguments.compile, arguments.graphs)
    rows = []
    with Screen() as screen:
        for way in ways:
            beside = {
                WRITE_UP: functools.partial(write_up_steps, recipe, classes, way.batch, device)
            }
            measured = bench.measure(
                settings,
                data,
                way,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                screen=screen,
                beside=beside,
            )
            steps = zip(measured.parts["step"].rounds, measured.parts[WRITE_UP].rounds, strict=True)
            ratios = bench.Rates(tuple(step / theirs for step, theirs in steps))
            precise = dataclasses.replace(recipe, precision=way.precision)
            rows.append(
                bench.report([measured])[0]
                | {
                    "step / a write-up's": ratios.figures(),
                    "floor": floor(precise, classes, way, device),
                }
            )
    return {
        "machine": machine() | device_words(device),
        "commit": commit(),
        "images": len(data.train),
        "recipe": [arguments.recipe, *arguments.values],
        "workers": arguments.workers,
        "seconds a measurement": arguments.seconds,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
