"""benchmarks/train_recipes.py, from drawn pictures to errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import told
from train_program import call

from benchmarks import train_recipes, trained
from prep.program import UserError

NARROW = ["--set", "width=0.05", "batch=8", "epochs=1", "warmup_epochs=0"]


def test_a_recipe_is_trained_with_every_seed_and_not_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train run` in this process: its imports take longer than the work."""
    shell = train_recipes.shell

    def shell_here(program: str, *arguments: object) -> None:
        if program == "train":
            assert call(*arguments) == 0
        else:
            shell(program, *arguments)

    monkeypatch.setattr(train_recipes, "shell", shell_here)
    work = tmp_path / "work"
    asked: list[object] = [source, work, "--data", "drawn", "--recipe", "demo"]
    asked += ["--seeds", "2", "--option=--workers=1", *NARROW]
    report = told(monkeypatch, train_recipes, tmp_path / "out.json", *asked)
    assert (report["data"], list(report["runs"])) == ("drawn", ["demo, seed 0", "demo, seed 1"])
    for seed, run in enumerate(report["runs"].values()):
        assert run["changed"].get("seed", 0) == seed
        assert set(run["test"]["views"]) == {"1", "5", "10"}
        assert len(run["epochs"]) == 1
    weights = {path: path.stat().st_mtime_ns for path in sorted(work.glob("*/last.pt"))}
    assert len(weights) == 2
    monkeypatch.setattr(trained, "judged", lambda *_: "judged")
    again = told(monkeypatch, train_recipes, tmp_path / "again.json", *asked)
    assert again["runs"] == {name: run | {"test": "judged"} for name, run in report["runs"].items()}
    assert weights == {path: path.stat().st_mtime_ns for path in weights}


def test_a_wrong_recipe_is_told_before_anything_is_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    wrong = [source, work, "--data", "x", "--recipe", "papier"]
    with pytest.raises(UserError, match="papier"):
        told(monkeypatch, train_recipes, tmp_path / "x", *wrong)
    assert not work.exists()
