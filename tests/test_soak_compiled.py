"""200 steps of the paper's network computed in the fast ways give the losses of the plain way.

Plain: eager, float32, augmented by the loader. Run by `make soak`, on a GPU where there is one; the
figures go to benchmarks/results/soak-compiled-*.json. At this learning rate the loss falls within
the second hundred steps. At three times that the differences grow to 0.1 in any way of computing,
since they are those of the order of additions, which training doubles again and again.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_soak import save

from train import metrics

pytestmark = pytest.mark.soak

ON_GPU = torch.cuda.is_available()
DRAWN, BATCH, STEPS = 320, 32, 200
RECIPE = {
    "width": 1.0 if ON_GPU else 0.25,
    "init": "authors-2012",
    "batch": BATCH,
    "epochs": STEPS * BATCH // DRAWN,
    "learning_rate": 0.003,
    "schedule": "steps",
}
# Each way's options, and by what the mean loss of any ten steps may differ.
WAYS: dict[str, tuple[list[str], float]] = {
    "augmented on the device": (["--feed", "gpu"], 0.01),
    "the same, compiled": (["--feed", "gpu", "--compile"], 0.01),
    "the same, bf16": (["--feed", "gpu", "--compile", "--set", "precision=bf16"], 0.05),
}
if ON_GPU:
    WAYS["compiled, one CUDA graph"] = (["--feed", "gpu", "--graphs"], 0.01)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    program = str(Path(sys.executable).parent / "prep")
    each = ["--classes", "10", "--per-class", str(DRAWN // 10)]
    for line in (
        ["sample", "src", *each],
        ["resize", "src", "out"],
        ["stats", "out/train"],
        ["write-beton", "out/train", "train.beton"],
    ):
        subprocess.run([program, *line], check=True, capture_output=True, cwd=folder)
    return folder / "train.beton"


def losses(beton: Path, out: Path, *options: str) -> list[float]:
    """The mean of every ten steps, an epoch."""
    line = [str(Path(sys.executable).parent / "train"), "run", "--beton", str(beton)]
    line += ["--out", str(out), "--recipe", "paper", "--workers", "2"]
    line += [f"--set={key}={value}" for key, value in RECIPE.items()]
    done = subprocess.run([*line, *options], check=True, capture_output=True, text=True)
    assert "goes on without" not in done.stdout + done.stderr
    rows: list[dict[str, Any]] = metrics.read(out / metrics.FILE_NAME)
    return [row["loss"] for row in rows if row["kind"] == "step"]


def test_the_fast_ways_have_the_losses_of_the_plain_one(drawn: Path, tmp_path: Path) -> None:
    plain = losses(drawn, tmp_path / "plain", "--feed", "cpu")
    assert len(plain) == STEPS // 10
    assert statistics.mean(plain[-2:]) < 0.9 * plain[0]  # else nothing could have come apart
    found: dict[str, Any] = {}
    for number, (name, (options, tolerance)) in enumerate(WAYS.items()):
        ours = losses(drawn, tmp_path / str(number), *options)
        apart = max(abs(a - b) for a, b in zip(ours, plain, strict=True))
        found[name] = {"largest difference": round(apart, 6), "tolerance": tolerance}
        found[name]["losses"] = [round(loss, 4) for loss in ours]
    save(
        f"compiled-{'gpu' if ON_GPU else 'cpu'}",
        {
            "recipe": ["paper", *(f"{key}={value}" for key, value in RECIPE.items())],
            "steps": STEPS,
            "mean loss of 10 steps, plain": [round(loss, 4) for loss in plain],
            "beside it": found,
        },
    )
    assert all(each["largest difference"] <= each["tolerance"] for each in found.values())
