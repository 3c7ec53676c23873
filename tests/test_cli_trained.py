"""`train eval` and `train export` from end to end."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torchvision
from safetensors import safe_open
from train_program import ONE_THREAD, call, failure

from prep.handover import read_card, write_card
from train import metrics as run_metrics

pytestmark = pytest.mark.usefixtures("threads_as_they_were")


@pytest.fixture
def last(run_folder: Path) -> dict[str, Any]:
    """The run's last row."""
    return run_metrics.read(run_folder / run_metrics.FILE_NAME)[-1]


def evaluated(run: Path, betons: Path, *options: object) -> None:
    assert call("eval", run, "--beton", betons / "val.beton", *options, *ONE_THREAD) == 0


def test_eval_prints_the_figures_of_the_last_epoch(
    run_folder: Path, betons: Path, last: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(run_folder, betons, "--views", "10")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"centre view: top-1 error {last['val_top1_error']:.2%}, top-5 error 0.00%, "
        f"loss {last['val_loss']:.4f}"
    )
    assert lines[1].startswith("10 views: top-1 error ")
    assert lines[2].startswith("9 images of 3 classes in ")
    assert len(lines) == 3


def test_eval_by_all_views_as_json(
    run_folder: Path, betons: Path, last: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(run_folder, betons, "--views", "all", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["classes"]) == (9, 3)
    assert found["seconds"] > 0
    assert list(found["views"]) == ["1", "5", "10"]
    assert found["views"]["1"] == {
        "top1_error": last["val_top1_error"],
        "top5_error": last["val_top5_error"],
        "loss": pytest.approx(last["val_loss"], rel=1e-5),  # of other batches
    }
    evaluated(run_folder, betons, "--views", "5", "--json")
    five = json.loads(capsys.readouterr().out)["views"]
    assert five == {count: found["views"][count] for count in ("1", "5")}


def test_eval_writes_tables_that_add_up(
    run_folder: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tmp_path / "deep" / "tables"
    evaluated(run_folder, betons, "--views", "10", "--json", "--csv", tables)
    ten = json.loads(capsys.readouterr().out)["views"]["10"]
    with (tables / "per_class.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["first", "second", "third"]
    assert [row["samples"] for row in rows] == ["3", "3", "3"]
    for name in ("top1_error", "top5_error", "loss"):
        assert sum(float(row[name]) for row in rows) / 3 == pytest.approx(ten[name], rel=1e-12)
    assert sorted(path.name for path in tables.iterdir()) == [
        "categories.csv",
        "confusions.csv",
        "per_class.csv",
    ]


def test_tables_need_a_folder(
    run_folder: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "taken"
    path.touch()
    beton = betons / "val.beton"
    assert f"--csv {path} is a file" in failure(
        capsys, "eval", run_folder, "--beton", beton, "--csv", path
    )


def test_a_view_at_random_is_called_so(
    run_folder: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(run_folder / "last.pt", weights_only=True)
    checkpoint["recipe"]["test_crop"] = "random"
    torch.save(checkpoint, tmp_path / "last.pt")
    evaluated(tmp_path, betons)
    assert capsys.readouterr().out.startswith("view at random: top-1 error ")


def test_a_beton_of_other_classes(
    run_folder: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_card(copied / "val.json")
    renamed = dataclasses.replace(card.classes[0], wnid="n00000001")
    card = dataclasses.replace(card, classes=(renamed, *card.classes[1:]))
    write_card(card, copied / "val.json")
    line = failure(capsys, "eval", run_folder, "--beton", copied / "val.beton", *ONE_THREAD)
    assert "n00000001 in place of n90000001" in line
    assert str(copied / "val.beton") in line


def test_torchvisions_weights_are_for_imagenets_classes(
    betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.device("meta"):
        shapes = torchvision.models.alexnet(weights=None).state_dict()
    path = tmp_path / "alexnet.pth"
    torch.save({name: torch.zeros(1).expand(each.shape) for name, each in shapes.items()}, path)
    line = failure(capsys, "eval", path, "--beton", betons / "val.beton", *ONE_THREAD)
    assert f"{betons / 'val.beton'} has other classes" in line
    assert "n90000001 in place of n01440764" in line


def test_too_many_workers(
    run_folder: Path, betons: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton = betons / "val.beton"
    line = failure(capsys, "eval", run_folder, "--beton", beton, "--workers", 1000)
    assert "--workers 1000" in line


def test_export_writes_beside_the_checkpoint_or_where_it_is_told(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.pt").write_bytes((run_folder / "last.pt").read_bytes())
    assert call("export", run) == 0
    out, err = capsys.readouterr()
    assert out == f"{run / 'last.onnx'}\n"
    assert "onnxruntime's logits are within" in err
    session = onnxruntime.InferenceSession(run / "last.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["batch", 3]

    elsewhere = tmp_path / "weights.safetensors"
    arguments = [run / "last.pt", "--format", "safetensors", "--out", elsewhere]
    assert call("export", *arguments) == 0
    assert capsys.readouterr().out == f"{elsewhere}\n"
    with safe_open(elsewhere, "pt") as file:
        assert json.loads(file.metadata()["names"]) == ["first", "second", "third"]


def test_an_export_of_another_ending_is_refused(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.safetensors"
    line = failure(capsys, "export", run_folder, "--out", path)
    assert f"--out {path}: the name should end in .onnx" in line
