"""`train bench`: what it counts and how, not how fast anything is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from train_program import call

from train import bench
from train.bench import Measured, Rates, Way

CPU = torch.device("cpu")
NARROW = ["--recipe", "demo", "--set", "width=0.05", "--workers", "1", "--device", "cpu"]
SHORT = ["--rounds", "2", "--seconds", "0.02"]

pytestmark = pytest.mark.usefixtures("threads_as_they_were")


def test_a_rate_is_of_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that a step takes a tenth of a second of, and the first three a second each."""
    now = 0.0
    done = 0

    def steps() -> Iterator[int]:
        nonlocal now, done
        while True:
            now += 1.0 if done < bench.BEFORE else 0.1
            done += 1
            yield 7

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now)
    assert bench._rate(steps(), 5.0, CPU) == pytest.approx(70)
    assert now > 5


def test_both_are_compared_with_the_slower_one_of_the_same_round() -> None:
    parts = {
        "loader": Rates((100.0, 50.0, 90.0)),
        "step": Rates((200.0, 80.0, 80.0)),
        "both": Rates((90.0, 50.0, 60.0)),
    }
    measured = Measured(Way(8, "bf16", "compiled"), parts, 3 << 20)
    assert measured.of_the_slower == pytest.approx(0.9)
    assert list(bench.lines([measured])) == [
        "batch  precision   network  loader, images/s  step, images/s  both, images/s  "
        "both of the slower  90 ImageNet epochs, computed  memory",
        "    8       bf16  compiled              90.0            80.0            60.0  "
        "              0.90                       533.8 h   3 MiB",
    ]


def test_every_batch_is_measured_in_every_precision_and_way() -> None:
    assert bench.ways([8, 4], ["bf16"], compiled=False, graphs=True) == [
        Way(8, "bf16", "eager"),
        Way(8, "bf16", "graphs"),
        Way(4, "bf16", "eager"),
        Way(4, "bf16", "graphs"),
    ]
    assert [way.computed for way in bench.ways([8], ["tf32"], compiled=True, graphs=False)] == [
        "eager",
        "compiled",
    ]


@pytest.mark.parametrize("feed", ["cpu", "gpu"])
def test_it_measures_all_parts(betons: Path, capsys: pytest.CaptureFixture[str], feed: str) -> None:
    """Of 18 images in batches of 8, whole ones only."""
    asked = ["--batch", "8", "--batch", "4", "--precision", "float32", "--precision", "bf16"]
    given = [*NARROW, *SHORT, "--feed", feed, *asked, "--json"]
    assert call("bench", "--beton", betons / "train.beton", *given) == 0
    rows = json.loads(capsys.readouterr().out)
    found = [(row["batch"], row["precision"], row["network"]) for row in rows]
    assert found == [(b, p, "eager") for b, p in itertools.product((8, 4), ("float32", "bf16"))]
    for row in rows:
        assert set(row["images/s"]) == set(bench.PARTS)
        for rate in row["images/s"].values():
            assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
            assert rate["n"] == 2
        assert row["both of the slower"] > 0
        epochs = 90 * 1_281_167 / row["images/s"]["both"]["median"] / 3600
        assert row["hours of 90 ImageNet epochs, computed"] == pytest.approx(epochs, rel=1e-3)


def test_it_leaves_no_file_and_no_thread(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("bench", "--beton", betons / "train.beton", *NARROW, *SHORT, "--batch", 8) == 0
    assert list(tmp_path.iterdir()) == []


def test_only_whole_batches_are_computed(
    betons: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: set[int] = set()
    step: Any = bench.Updater.step

    def noted(self: Any, batch: Any, number: int, total: int) -> Any:
        sizes.add(len(batch.labels))
        assert total == len(batch.labels)
        return step(self, batch, number, total)

    monkeypatch.setattr(bench.Updater, "step", noted)
    assert call("bench", "--beton", betons / "train.beton", *NARROW, *SHORT, "--batch", 8) == 0
    assert sizes == {8}
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["batch", "precision"]
    assert row.split()[:3] == ["8", "float32", "eager"]
    assert head.endswith("90 ImageNet epochs, computed  memory")
    assert row.endswith(" h")  # memory is of GPUs


def test_a_batch_larger_than_the_beton_is_refused(
    betons: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", "--beton", betons / "train.beton", *NARROW, "--batch", 19) == 1
    assert "has 18 images, fewer than a batch of 19" in capsys.readouterr().err


def test_graphs_are_refused_before_anything_is_measured(
    betons: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it measures"))
    assert call("bench", "--beton", betons / "train.beton", *NARROW, *SHORT, "--graphs") == 1
    assert "--graphs is for GPUs" in capsys.readouterr().err
