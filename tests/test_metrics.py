"""metrics.jsonl and TensorBoard events: rows, torn lines, and nothing doubled after a resume."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import networks
from train.metrics import FILE_NAME, Metrics, read
from train.recipe import load_recipe


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of every event that TensorBoard would show."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def write(folder: Path, start: int, steps: range) -> None:
    with Metrics(folder, start, epoch=1) as recorder:
        for step in steps:
            recorder.row("step", step, {"loss": step / 4})


def write_later(folder: Path, start: int, steps: range) -> None:
    """`write` in a second of its own: TensorBoard orders files by the second in their names."""
    time.sleep(1.1)
    write(folder, start, steps)


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 0) as recorder:
        recorder.row("step", 20, {"loss": 1.5, "gradient_norm": float("inf")})
        recorder.row("step", 40, {"loss": float("nan"), "gradient_norm": 2.0})
    text = (tmp_path / FILE_NAME).read_text()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [(row["loss"], row["gradient_norm"]) for row in rows] == [(1.5, None), (None, 2.0)]


def test_rows_hold_kind_step_and_values(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 0) as recorder:
        recorder.row("step", 20, {"loss": 1.5, "learning_rate": 0.01})
        recorder.row("epoch", 25, {"epoch": 1, "loss": 1.25})
    assert read(tmp_path / FILE_NAME) == [
        {"kind": "step", "step": 20, "loss": 1.5, "learning_rate": 0.01},
        {"kind": "epoch", "step": 25, "epoch": 1, "loss": 1.25},
    ]


def test_a_row_is_in_the_file_at_once(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 0) as recorder:
        recorder.row("step", 1, {"loss": 1.0})
        assert len(read(tmp_path / FILE_NAME)) == 1


def test_every_line_is_json(tmp_path: Path) -> None:
    write(tmp_path, 0, range(3))
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_the_networks_graph_is_for_tensorboard(tmp_path: Path) -> None:
    network = networks.build(load_recipe("demo", ["width=0.02"]), 3).train()
    with Metrics(tmp_path, 0, 0) as recorder:
        recorder.graph(network, torch.zeros(1, 3, 224, 224))
    assert network.training
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    nodes = {node.name for node in events.Graph().node}
    for layer in ("conv1", "norm1", "fc8"):
        assert any(f"[{layer}]" in name for name in nodes), sorted(nodes)


def test_no_file_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / FILE_NAME) == []


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, range(3))
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(last, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert [row["step"] for row in read(path)] == [0, 1], length


def test_a_resumed_run_writes_on_behind_a_torn_line(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-5])
    write(tmp_path, 2, range(3, 5))
    assert [row["step"] for row in read(path)] == [1, 2, 3, 4]


def test_rows_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 4, range(5, 7))
    assert [row["step"] for row in read(tmp_path / FILE_NAME)] == [1, 2, 3, 4, 5, 6]


def test_a_run_from_the_start_drops_all_rows(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4))
    write(tmp_path, 0, range(1, 2))
    assert [row["step"] for row in read(tmp_path / FILE_NAME)] == [1]


def test_opening_changes_nothing_that_is_kept(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 0) as recorder:
        recorder.row("step", 5, {"loss": 0.1 + 0.2, "nothing": float("nan")})
    before = (tmp_path / FILE_NAME).read_bytes()
    with Metrics(tmp_path, 5, 1):
        pass
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_an_error_inside_closes_both_files(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Metrics(tmp_path, 0, 0) as recorder:
            recorder.row("step", 1, {"loss": 2.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read(tmp_path / FILE_NAME)) == 1
    assert scalars(tmp_path, "step/loss") == [(1, 2.0)]


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, 0) as recorder:
        recorder.row("step", 20, {"loss": 1.5})
        recorder.row("epoch", 25, {"epoch": 1, "val_loss": 0.75})
    assert scalars(tmp_path, "step/loss") == [(20, 1.5)]
    assert scalars(tmp_path, "epoch/val_loss") == [(25, 0.75)]


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write_later(tmp_path, 4, range(5, 7))
    assert scalars(tmp_path, "step/loss") == [(step, step / 4) for step in range(1, 7)]


def test_tensorboard_shows_no_epoch_twice_that_was_written_before_its_checkpoint(
    tmp_path: Path,
) -> None:
    """Its row has the step that the checkpoint is of, as the row before it, which stays."""
    rows = {"step": {"loss": 1.0}, "epoch": {"epoch": 1, "loss": 2.0}}
    for _ in range(2):
        with Metrics(tmp_path, 20 if (tmp_path / FILE_NAME).exists() else 0, epoch=0) as recorder:
            for kind, values in rows.items():
                if kind == "epoch" or not read(tmp_path / FILE_NAME):
                    recorder.row(kind, 20, values)
        time.sleep(1.1)
    assert [row["kind"] for row in read(tmp_path / FILE_NAME)] == ["step", "epoch"]
    assert scalars(tmp_path, "step/loss") == [(20, 1.0)]
    assert scalars(tmp_path, "epoch/loss") == [(20, 2.0)]


def test_tensorboard_forgets_the_run_that_was_started_over(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write_later(tmp_path, 0, range(1, 3))
    assert scalars(tmp_path, "step/loss") == [(1, 0.25), (2, 0.5)]
