"""benchmarks/ablate.py: which runs it asks for, and what it tells of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablate
from prep.program import UserError
from train import metrics


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs' --set values; a run has two epochs and as many errors as values, and its seed."""
    found: list[list[str]] = []

    def run(command: list[str], check: bool) -> None:
        assert check
        values = [word for before, word in itertools.pairwise(command) if before == "--set"]
        found.append(values)
        out = Path(command[command.index("--out") + 1])
        out.mkdir(parents=True)
        error = len(values) / 10 + int(values[-1].removeprefix("seed=")) / 100
        rows: list[dict[str, Any]] = [{"kind": "step", "step": 1}]
        for epoch in (1, 2):
            figures = {"val_top1_error": error / epoch, "val_top5_error": 0.01, "loss": 2.5}
            rows.append({"kind": "epoch", "epoch": epoch, "seconds": 3.0} | figures)
        (out / metrics.FILE_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(ablate.subprocess, "run", run)
    monkeypatch.setattr(ablate, "machine", lambda: {"cores": 2})
    return found


def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    given = ["ablate", "x.beton", str(tmp_path / "work"), "--recipe", "demo", "--out", str(out)]
    monkeypatch.setattr(ablate.sys, "argv", [*given, *words])
    ablate.main()
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_each_change_is_trained_alone_with_every_seed(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changes = ["nesterov=true", "network=paper,init=paper"]
    report = told(
        *(monkeypatch, tmp_path),
        *("--set", "width=0.1", "--change", *changes, "--seeds", "2"),
    )
    assert asked == [
        ["width=0.1", "seed=0"],
        ["width=0.1", "seed=1"],
        ["width=0.1", "nesterov=true", "seed=0"],
        ["width=0.1", "nesterov=true", "seed=1"],
        ["width=0.1", "network=paper", "init=paper", "seed=0"],
        ["width=0.1", "network=paper", "init=paper", "seed=1"],
    ]
    assert list(report["changes"]) == [ablate.AS_IT_IS, *changes]
    row = report["changes"]["nesterov=true"]
    assert row["top-1 error"] == {"mean": 0.1525, "lowest": 0.15, "highest": 0.155}
    assert row["seconds"] == {"mean": 6.0, "lowest": 6.0, "highest": 6.0}


def test_a_slip_of_the_pen_is_told_before_anything_is_trained(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="mementum"):
        told(monkeypatch, tmp_path, "--change", "nesterov=true", "mementum=0.8")
    assert asked == []
