"""The training run: it learns, stops and goes on bit for bit, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_jpeg

from prep import build, handover, plan
from prep.locks import only_run
from prep.order import Order
from prep.program import UserError
from prep.sources import find_source
from prep.write import write_beton
from train import checkpoint as checkpoints
from train import epoch, evaluate, loop, metrics, schedule, signals
from train.dataset import open_dataset
from train.loader import evaluation_batches
from train.recipe import Recipe, load_recipe
from train.state import RunSettings
from train.step import Updater

CPU = torch.device("cpu")
TIMINGS = {"images_per_s", "data_wait", "seconds"}
STEPS_AN_EPOCH = 3  # 18 images in batches of 8, 8 and 2


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(*settings: str) -> Recipe:
    fixed = ["width=0.07", "batch=8", "epochs=2", "learning_rate=0.01", "warmup_epochs=1"]
    return load_recipe("demo", [*fixed, *settings])


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Looks at validation errors: halves the rate at the first plateau, ends at the second."""
    plateau = ["schedule=plateau", "patience=2", "drops=1", "drop_factor=0.5"]
    return tiny("epochs=12", "learning_rate=0.02", *plateau)


def settings_of(
    betons: Path, out: Path, recipe: Recipe, resume: str = "auto", val: bool = True
) -> RunSettings:
    val_beton = betons / "val.beton" if val else None
    return RunSettings(betons / "train.beton", val_beton, recipe, out, resume, CPU, workers=1)


@pytest.fixture(scope="module")
def straight(betons: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, uninterrupted run. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("loop") / "deep" / "run"
    assert loop.run(settings_of(betons, out, recipe)) == out / "last.pt"
    return out


def rows_of(out: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind, but for their timings."""
    return [
        {name: value for name, value in row.items() if name not in TIMINGS}
        for row in metrics.read(out / metrics.FILE_NAME)
        if row["kind"] == kind
    ]


def assert_equal_runs(one: Path, two: Path) -> None:
    """Equal weights and velocities bit for bit, equal metrics."""
    first, second = checkpoints.load(one), checkpoints.load(two)
    assert (first.epoch, first.step) == (second.epoch, second.step)
    assert first.history == second.history
    assert list(first.network) == list(second.network)
    for name, weights in first.network.items():
        assert torch.equal(weights, second.network[name]), name
    for key, state in first.optimiser["state"].items():
        assert torch.equal(
            state["momentum_buffer"], second.optimiser["state"][key]["momentum_buffer"]
        )
    for kind in ("step", "epoch"):
        assert rows_of(one, kind) == rows_of(two, kind)


def refusal(settings: RunSettings) -> str:
    with pytest.raises(UserError) as caught:
        loop.run(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_writes_its_checkpoint_and_metrics_and_nothing_else(straight: Path) -> None:
    assert sorted(path.name for path in straight.iterdir()) == [
        ".lock",
        "best.pt",
        "last.pt",
        "log.txt",
        "metrics.jsonl",
        "run.json",
        "tensorboard",
    ]
    loaded = checkpoints.load(straight)
    assert loaded.step == STEPS_AN_EPOCH * loaded.epoch
    assert loaded.threads == 1
    assert loaded.data.wnids == ["n90000001", "n90000002", "n90000003"]


def test_a_run_learns(straight: Path) -> None:
    epochs = rows_of(straight, "epoch")
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]
    assert epochs[-1]["top1_error"] < epochs[0]["top1_error"]


def test_every_epoch_has_a_row_with_all_figures(straight: Path) -> None:
    rows = [row for row in metrics.read(straight / metrics.FILE_NAME) if row["kind"] == "epoch"]
    assert [row["epoch"] for row in rows] == list(range(1, checkpoints.load(straight).epoch + 1))
    for row in rows:
        assert row["step"] == STEPS_AN_EPOCH * row["epoch"]
        assert all(0 <= row[name] <= 1 for name in ("top1_error", "val_top1_error", "data_wait"))
        assert row["top5_error"] == row["val_top5_error"] == 0  # of three classes
        assert row["images_per_s"] == pytest.approx(18 / row["seconds"])
        assert math.isfinite(row["val_loss"])


def test_errors_are_of_whole_images_each_counted_once(straight: Path) -> None:
    for row in rows_of(straight, "epoch"):
        for name, samples in (("top1_error", 18), ("val_top1_error", 9)):
            count = row[name] * samples
            assert count == pytest.approx(round(count), abs=1e-4)


def test_an_epochs_step_row_is_its_mean_when_it_has_one(straight: Path) -> None:
    """Three steps an epoch are fewer than STEP_INTERVAL: one row, over all images alike."""
    steps, epochs = rows_of(straight, "step"), rows_of(straight, "epoch")
    assert [row["loss"] for row in steps] == pytest.approx([row["loss"] for row in epochs])


def test_the_plateau_schedule_follows_the_validation_errors(straight: Path, recipe: Recipe) -> None:
    rows = rows_of(straight, "epoch")
    history = [{name: row[name] for name in schedule.WATCHED} for row in rows]
    assert history == checkpoints.load(straight).history
    for done, row in enumerate(rows):
        assert row["learning_rate"] == schedule.learning_rate(recipe, done, history[:done])
    over = [bool(schedule.ended(recipe, done, history[:done])) for done in range(1, len(rows) + 1)]
    assert over == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]  # a plateau was met


def at_call(function: Any, number: int, what: Callable[[], None]) -> Any:
    """Stands for a function, but something else comes before its n-th call."""
    left = number

    def replaced(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            what()
        return function(*arguments)

    return replaced


def killed() -> None:
    raise KeyboardInterrupt


def interrupt(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, call: int, settings: RunSettings
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(where, name, at_call(getattr(where, name), call, killed))
        with pytest.raises(KeyboardInterrupt):
            loop.run(settings)


@pytest.mark.parametrize(
    ("where", "name", "call", "epochs_kept"),
    [
        (Updater, "step", 2 * STEPS_AN_EPOCH + 2, 2),  # in the middle of the third epoch
        (checkpoints, "save", 3, 2),  # after the third epoch's rows, before its checkpoint
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not(
    betons: Path,
    recipe: Recipe,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: Any,
    name: str,
    call: int,
    epochs_kept: int,
) -> None:
    settings = settings_of(betons, tmp_path, recipe)
    interrupt(monkeypatch, where, name, call, settings)
    assert checkpoints.load(tmp_path).epoch == epochs_kept
    assert not list(tmp_path.glob("*.partial"))
    capsys.readouterr()
    loop.run(settings)
    said = capsys.readouterr().err
    assert f"after epoch {epochs_kept}, step {STEPS_AN_EPOCH * epochs_kept}" in said
    assert "warning" not in said
    assert_equal_runs(straight, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_step_then_a_checkpoint_then_the_run(
    betons: Path,
    recipe: Recipe,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """In the second step of the second epoch."""
    settings = settings_of(betons, tmp_path, recipe)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        step = at_call(Updater.step, STEPS_AN_EPOCH + 2, lambda: os.kill(os.getpid(), number))
        patch.setattr(Updater, "step", step)
        with pytest.raises(SystemExit) as ending:
            loop.run(settings)
    assert ending.value.code == (130 if number == signal.SIGINT else signals.CHECKPOINTED)
    assert signal.getsignal(number) == before
    kept = checkpoints.load(tmp_path)
    assert (kept.epoch, kept.epoch_step, kept.step) == (1, 2, STEPS_AN_EPOCH + 2)
    path, step_now = tmp_path / "last.pt", STEPS_AN_EPOCH + 2
    assert f"{number.name}: checkpoint {path} after step {step_now}" in capsys.readouterr().err
    loop.run(settings)
    assert f"after epoch 1 and 2 steps, step {step_now}" in capsys.readouterr().err
    assert_equal_runs(straight, tmp_path)


def test_stopped_after_every_step_and_in_every_validation_it_ends_with_the_same_weights(
    betons: Path,
    recipe: Recipe,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(betons, tmp_path, recipe)
    ends = 0
    while True:
        with monkeypatch.context() as patch:
            where, name = ((Updater, "step"), (evaluate, "probabilities"))[ends % 2]
            stop = at_call(getattr(where, name), 1, lambda: signal.raise_signal(signal.SIGTERM))
            patch.setattr(where, name, stop)
            try:
                loop.run(settings)
                break
            except SystemExit:
                ends += 1
    assert ends > STEPS_AN_EPOCH * checkpoints.load(straight).epoch / 2
    assert_equal_runs(straight, tmp_path)


def test_checkpoints_within_an_epoch_and_the_older_ones(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(betons, tmp_path, tiny(), val=False)
    settings = dataclasses.replace(settings, checkpoint_steps=2, keep=2)
    interrupt(monkeypatch, Updater, "step", STEPS_AN_EPOCH + 3, settings)
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == ["last.pt", "step-00000003.pt", "step-00000004.pt"]
    kept = checkpoints.load(tmp_path)
    assert (kept.epoch, kept.epoch_step, kept.step) == (1, 1, 4)
    loop.run(settings)
    whole = tmp_path / "whole"
    loop.run(settings_of(betons, whole, tiny(), val=False))
    assert_equal_runs(whole, tmp_path)


def test_checkpoints_by_the_clock(betons: Path, tmp_path: Path) -> None:
    settings = settings_of(betons, tmp_path, tiny("epochs=1", "warmup_epochs=0"), val=False)
    loop.run(dataclasses.replace(settings, checkpoint_minutes=1e-9, keep=9))
    names = sorted(path.name for path in tmp_path.glob("step-*.pt"))
    assert names == ["step-00000001.pt", "step-00000002.pt", "step-00000003.pt"]


def test_the_best_epoch_s_checkpoint_is_kept(straight: Path, recipe: Recipe) -> None:
    errors = [measured[recipe.watch] for measured in checkpoints.load(straight).history]
    best = checkpoints.load(straight / "best.pt")
    assert best.epoch == errors.index(min(errors)) + 1
    assert best.epoch < len(errors)  # or last.pt would do


def test_a_run_begins_with_the_weights_of_another(
    betons: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = tiny("epochs=1", "warmup_epochs=0", "learning_rate=1e-30")
    settings = settings_of(betons, tmp_path, frozen, val=False)
    loop.run(dataclasses.replace(settings, init=straight))
    assert f"weights of {straight}" in capsys.readouterr().err
    old, new = checkpoints.load(straight), checkpoints.load(tmp_path)
    for name, weights in old.network.items():
        if "norm" not in name:  # which follow the images they see
            assert torch.equal(weights, new.network[name]), name


def test_weights_for_other_classes_get_a_new_last_layer(
    betons: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = checkpoints.load(straight)
    data = dataclasses.replace(old.data, wnids=["a", "b"], names=["a", "b"])
    weights = old.network | {
        name: old.network[name][:2].clone() for name in ("fc8.weight", "fc8.bias")
    }
    other = tmp_path / "other.pt"
    checkpoints.save(dataclasses.replace(old, data=data, network=weights), other)
    frozen = tiny("epochs=1", "warmup_epochs=0", "learning_rate=1e-30")
    settings = settings_of(betons, tmp_path / "run", frozen, val=False)
    loop.run(dataclasses.replace(settings, init=other))
    assert "with a new last layer for 3 other classes" in capsys.readouterr().err
    new = checkpoints.load(tmp_path / "run")
    assert torch.equal(new.network["fc7.weight"], old.network["fc7.weight"])
    assert new.network["fc8.weight"].shape == (3, old.network["fc8.weight"].shape[1])


def test_weights_of_another_network_are_refused(
    betons: Path, straight: Path, tmp_path: Path
) -> None:
    settings = settings_of(betons, tmp_path, tiny("network=paper"), val=False)
    message = refusal(dataclasses.replace(settings, init=straight))
    assert "holds the weights of another network" in message


def test_a_last_batch_too_small_for_batch_norm_is_refused(betons: Path, tmp_path: Path) -> None:
    recipe = tiny("network=batch-norm", "batch=17", "epochs=1", "warmup_epochs=0")
    message = refusal(settings_of(betons, tmp_path, recipe, val=False))
    assert "18 images in batches of 17 leave 1 for a step" in message
    assert "--set batch=" in message


@pytest.mark.parametrize("images", [18, 8])
def test_pieces_too_small_for_batch_norm_are_refused(
    betons: Path, tmp_path: Path, images: int
) -> None:
    """Of the last batch of two, or of all of them."""
    recipe = tiny("network=batch-norm", "batch=16", "epochs=1", "warmup_epochs=0")
    settings = settings_of(betons, tmp_path, recipe, val=False)
    pieces = 2 if images == 18 else 9
    message = refusal(dataclasses.replace(settings, accumulate=pieces))
    assert f"too few for batch norm in 1 process(es) and {pieces} piece(s)" in message


def test_weights_in_the_run_s_own_folder_are_refused(betons: Path, finished: Path) -> None:
    """The new run would take their place."""
    settings = settings_of(betons, finished, tiny(), "never", val=False)
    for origin in (finished, finished / "best.pt"):
        assert "lies in --out" in refusal(dataclasses.replace(settings, init=origin))
    assert checkpoints.load(finished).step > 0


def test_weights_of_one_run_and_the_state_of_another_are_refused(
    betons: Path, finished: Path, tmp_path: Path
) -> None:
    settings = settings_of(betons, tmp_path / "x", tiny(), str(finished), val=False)
    assert "give one of the two" in refusal(dataclasses.replace(settings, init=finished))


def test_going_on_from_a_finished_run_elsewhere_says_what_is_missing(
    betons: Path, recipe: Recipe, finished: Path, tmp_path: Path
) -> None:
    message = refusal(settings_of(betons, tmp_path / "x", recipe, str(finished)))
    assert f"{finished} has finished: epoch " in message
    assert "no lower val_top1_error for 2 epochs after 1 drop of the learning rate" in message
    assert "to go on, give --init and another --out" in message


def test_the_same_samples_in_another_order_are_refused(
    betons: Path, prepared_set: Path, tmp_path: Path
) -> None:
    """Crops, dropout and the epoch's order go by a sample's place in the file."""
    write_beton(prepared_set / "train", tmp_path / "train.beton", "jpg", 1, Order("shuffled", 0))
    recipe = tiny("epochs=1", "warmup_epochs=0", "schedule=steps")
    loop.run(settings_of(betons, tmp_path / "run", recipe, val=False))
    more = dataclasses.replace(recipe, epochs=2)
    message = refusal(settings_of(tmp_path, tmp_path / "run", more, val=False))
    assert "on the same samples in another order" in message


def test_validation_data_may_come_later(betons: Path, tmp_path: Path) -> None:
    recipe = tiny("epochs=1", "schedule=steps")
    loop.run(settings_of(betons, tmp_path, recipe, val=False))
    assert not (tmp_path / "best.pt").exists()
    loop.run(settings_of(betons, tmp_path, dataclasses.replace(recipe, epochs=2)))
    assert checkpoints.load(tmp_path / "best.pt").epoch == 2


def test_ended_between_its_names_a_checkpoint_keeps_the_best(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """last.pt comes last: a run that goes on after it has had its best.pt."""
    recipe = tiny("epochs=2", "schedule=steps")
    ended = Path.replace

    def end(self: Path, target: Path) -> Path:
        if self.name == "last.pt.new":
            raise KeyboardInterrupt
        return ended(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", end)
        with pytest.raises(KeyboardInterrupt):
            loop.run(settings_of(betons, tmp_path, recipe))
    assert checkpoints.load(tmp_path / "best.pt").epoch == 1
    assert not (tmp_path / "last.pt").exists()
    loop.run(settings_of(betons, tmp_path, recipe))
    assert (tmp_path / "best.pt").exists()
    assert not (tmp_path / "last.pt.new").exists()


def test_weights_for_pixels_of_another_scale_are_refused(
    betons: Path, straight: Path, tmp_path: Path
) -> None:
    settings = settings_of(betons, tmp_path, tiny("pixel_divisor=127.5"), val=False)
    message = refusal(dataclasses.replace(settings, init=straight))
    assert "are for pixels over 1, recipe demo has them over 127.5" in message
    assert "--set pixel_divisor=1" in message


def test_an_average_of_the_weights_is_kept_judged_by_five_views_and_resumed(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("average_decay=0.9", "val_views=5")
    whole, stopped = (settings_of(betons, tmp_path / name, recipe) for name in ("a", "b"))
    loop.run(whole)
    with monkeypatch.context() as patch:
        stop = at_call(Updater.step, 5, lambda: signal.raise_signal(signal.SIGTERM))
        patch.setattr(Updater, "step", stop)
        with pytest.raises(SystemExit):
            loop.run(stopped)
    loop.run(stopped)
    assert_equal_runs(whole.out, stopped.out)
    one, two = checkpoints.load(whole.out), checkpoints.load(stopped.out)
    assert all(torch.equal(values, two.average[name]) for name, values in one.average.items())
    judged = checkpoints.judged_weights(one)
    assert not torch.equal(judged["fc8.weight"], one.network["fc8.weight"])
    network = checkpoints.trained_network(one, whole.out)
    batches = evaluation_batches(open_dataset(betons / "val.beton"), 8, 1, CPU)
    views = evaluate.views_of(recipe, one.data, CPU, recipe.val_views)
    scores = evaluate.evaluate(network, batches.sequential(), views)
    assert scores[5].loss == one.history[-1]["val_loss"] != scores[1].loss


def test_resuming_from_a_path_goes_on_in_another_folder(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One-cycle, without validation data: the rate is a function of the epoch alone."""
    first, second, whole = tmp_path / "first", tmp_path / "second", tmp_path / "whole"
    settings = settings_of(betons, first, tiny(), val=False)
    interrupt(monkeypatch, Updater, "step", STEPS_AN_EPOCH + 1, settings)
    kept = (first / "last.pt").read_bytes()
    loop.run(dataclasses.replace(settings, out=second, resume=str(first)))
    loop.run(dataclasses.replace(settings, out=whole))
    assert (first / "last.pt").read_bytes() == kept
    one, two = checkpoints.load(second), checkpoints.load(whole)
    assert one.step == two.step == 2 * STEPS_AN_EPOCH
    assert all(torch.equal(one.network[name], two.network[name]) for name in one.network)
    assert rows_of(second, "epoch") == rows_of(whole, "epoch")[1:]
    assert "val_loss" not in rows_of(whole, "epoch")[0]


@pytest.fixture
def finished(straight: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for changing."""
    return Path(shutil.copytree(straight, tmp_path / "finished"))


def test_a_finished_run_says_so_and_stays(
    betons: Path, recipe: Recipe, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "last.pt").read_bytes(), (finished / "metrics.jsonl").read_bytes()
    path = loop.run(settings_of(betons, finished, recipe))
    assert path == finished / "last.pt"
    assert (path.read_bytes(), (finished / "metrics.jsonl").read_bytes()) == before
    assert f"{finished} has finished" in capsys.readouterr().err


def test_resume_never_starts_over(betons: Path, finished: Path) -> None:
    loop.run(settings_of(betons, finished, tiny("epochs=1", "warmup_epochs=0"), "never", val=False))
    assert checkpoints.load(finished).step == STEPS_AN_EPOCH
    assert [row["epoch"] for row in rows_of(finished, "epoch")] == [1]


def test_another_recipe_value_is_refused(betons: Path, recipe: Recipe, finished: Path) -> None:
    changed = dataclasses.replace(recipe, learning_rate=0.5)
    message = refusal(settings_of(betons, finished, changed))
    assert "learning_rate 0.02, this command says 0.5" in message
    assert str(finished) in message


def test_other_data_is_refused(
    betons: Path, recipe: Recipe, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for suffix in (".beton", ".json", ".records.npz"):
        shutil.copy(betons / f"val{suffix}", other / f"train{suffix}")
    statistics = dataclasses.replace(
        handover.read_statistics(betons / "train.stats.npz"),
        pixels_id=handover.read_card(other / "train.json").pixels_id,
    )
    handover.write_statistics(statistics, other / "train.stats.npz")
    settings = settings_of(betons, finished, recipe)
    val = betons / "train.beton"
    changed = dataclasses.replace(settings, beton=other / "train.beton", val_beton=val)
    message = refusal(changed)
    assert "other data" in message
    assert "--resume never" in message


def test_validation_by_the_training_pictures_is_told(
    betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what they are, whatever the file is called; some want a network to learn by heart."""
    for suffix in (".beton", ".json", ".records.npz"):
        shutil.copy(betons / f"train{suffix}", tmp_path / f"other{suffix}")
    settings = settings_of(betons, tmp_path / "run", tiny("epochs=1", "warmup_epochs=0"))
    loop.run(dataclasses.replace(settings, val_beton=tmp_path / "other.beton"))
    words = "other.beton holds the very pictures that are trained on"
    assert words in capsys.readouterr().err
    assert words in (tmp_path / "run" / loop.LOG_NAME).read_text()


def test_a_damaged_checkpoint_is_refused_not_started_over(
    betons: Path, recipe: Recipe, finished: Path
) -> None:
    path = finished / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in refusal(settings_of(betons, finished, recipe))
    assert path.stat().st_size == 1000


def test_resuming_from_nothing_is_refused(betons: Path, recipe: Recipe, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    message = refusal(settings_of(betons, tmp_path / "run", recipe, resume=str(absent)))
    assert f"{absent} does not exist" in message
    assert not (tmp_path / "run").exists()


def test_another_number_of_threads_warns(
    betons: Path, recipe: Recipe, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = dataclasses.replace(checkpoints.load(finished), threads=3)
    checkpoints.save(changed, finished / "last.pt")
    loop.run(settings_of(betons, finished, recipe))
    said = capsys.readouterr().err
    assert "warning" in said
    assert "with 3 threads, this run has 1" in said


def test_a_loss_that_is_no_number_ends_the_run(betons: Path, tmp_path: Path) -> None:
    recipe = tiny("learning_rate=1e20", "schedule=steps", "drop_epochs=[]")
    message = refusal(settings_of(betons, tmp_path, recipe, val=False))
    assert f"by step {STEPS_AN_EPOCH}, learning rate 1e+20" in message
    assert "another --out with a lower --set learning_rate=, or look" in message
    assert not (tmp_path / "last.pt").exists()


def test_the_rate_that_is_named_is_not_that_of_a_frozen_layer(betons: Path, tmp_path: Path) -> None:
    fatal = ("learning_rate=1e20", "schedule=steps", "drop_epochs=[]", "bias_rate_factor=2")
    frozen = 'layer_rates=[{layer="conv1", from_epoch=0, rate=0}]'
    message = refusal(settings_of(betons, tmp_path, tiny(*fatal, frozen), val=False))
    assert ", learning rate 1e+20: " in message


def test_the_last_good_weights_are_named_where_there_are_any(
    betons: Path, finished: Path, tmp_path: Path
) -> None:
    """Those of --out, or those that the run began with."""
    fatal = tiny("learning_rate=1e20", "schedule=steps", "drop_epochs=[]")
    settings = settings_of(betons, tmp_path / "new", fatal, val=False)
    message = refusal(dataclasses.replace(settings, init=finished))
    assert f"with the last good weights by --init {finished.resolve() / 'last.pt'}, or" in message
    begun = tiny("schedule=steps", "drop_epochs=[]", "epochs=1", "warmup_epochs=0")
    loop.run(settings_of(betons, tmp_path / "run", begun, val=False))
    last = tmp_path / "run" / "last.pt"
    good = checkpoints.load(last)
    checkpoints.save(dataclasses.replace(good, recipe=fatal, step=good.step), last)
    message = refusal(settings_of(betons, tmp_path / "run", fatal, val=False))
    assert f"with the last good weights by --init {last}, or" in message


def test_a_schedule_that_needs_validation_data_asks_for_it(
    recipe: Recipe, betons: Path, tmp_path: Path
) -> None:
    settings = settings_of(betons, tmp_path / "run", recipe, val=False)
    assert "--val-beton" in refusal(settings)
    absent = tmp_path / "absent.beton"
    assert "absent.beton does not exist" in refusal(dataclasses.replace(settings, beton=absent))


def test_the_same_command_goes_on_with_a_run_that_began_with_another(
    betons: Path, recipe: Recipe, straight: Path, tmp_path: Path
) -> None:
    whole = checkpoints.load(straight)
    begun, out = tmp_path / "begun.pt", tmp_path / "out"
    checkpoints.save(dataclasses.replace(whole, epoch=1, history=whole.history[:1]), begun)
    settings = settings_of(betons, out, recipe, resume=str(begun))
    for _ in range(2):
        loop.run(settings)
    assert checkpoints.load(out).origin == str(begun.resolve())


def test_a_run_goes_on_though_what_it_began_with_is_gone(
    betons: Path, straight: Path, tmp_path: Path
) -> None:
    """--keep takes away what --resume named; a run that --init named is moved."""
    begun = Path(shutil.copytree(straight, tmp_path / "begun"))
    recipe = tiny("epochs=1", "warmup_epochs=0")
    init = settings_of(betons, tmp_path / "init", recipe, val=False)
    init = dataclasses.replace(init, init=begun)
    longer = dataclasses.replace(checkpoints.load(begun).recipe, epochs=13, drops=2)
    good = checkpoints.load(begun)
    checkpoints.save(dataclasses.replace(good, recipe=longer), begun / "step-00000009.pt")
    resumed = settings_of(betons, tmp_path / "resumed", longer, str(begun / "step-00000009.pt"))
    for settings in (init, resumed):
        loop.run(settings)
    begun.rename(tmp_path / "moved")
    for settings in (init, resumed):
        before = checkpoints.load(settings.out).step
        loop.run(settings)
        assert checkpoints.load(settings.out).step == before > 0
    elsewhere = dataclasses.replace(init, out=tmp_path / "elsewhere")
    assert f"--init {begun} does not exist" in refusal(elsewhere)
    assert not elsewhere.out.exists()


def test_weights_are_not_passed_over_where_another_run_lies(
    betons: Path, recipe: Recipe, straight: Path, finished: Path
) -> None:
    """Without --init, that one would be carried on."""
    before = (finished / "last.pt").read_bytes()
    settings = dataclasses.replace(settings_of(betons, finished, recipe), init=straight)
    assert f"did not begin with --init {straight}; give another --out" in refusal(settings)
    assert (finished / "last.pt").read_bytes() == before
    loop.run(dataclasses.replace(settings, resume="never", recipe=tiny("epochs=2")))


def test_a_run_that_has_stopped_early_goes_on_with_more_patience(
    betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def patient(epochs: int) -> RunSettings:
        frozen = ("schedule=steps", "drop_epochs=[]", "learning_rate=1e-30", "epochs=5")
        recipe = tiny(*frozen, f"stop_patience={epochs}", "watch=val_top1_error")
        return settings_of(betons, tmp_path, recipe)

    loop.run(patient(1))
    assert checkpoints.load(tmp_path).epoch == 2  # the second was not better
    capsys.readouterr()
    loop.run(patient(1))
    said = capsys.readouterr().err
    assert "has finished: epoch 2, no lower val_top1_error for 1 epoch; to go on, give" in said
    assert "--set stop_patience=" in said
    loop.run(patient(3))
    assert checkpoints.load(tmp_path).epoch == 4


def test_the_best_epoch_is_not_chosen_among_those_of_other_validation_data(
    betons: Path, tmp_path: Path
) -> None:
    """Where no schedule looks at it; validation that comes later is no other one."""
    fixed = tiny("schedule=steps", "drop_epochs=[]", "epochs=3")
    loop.run(settings_of(betons, tmp_path, dataclasses.replace(fixed, epochs=1), val=False))
    loop.run(settings_of(betons, tmp_path, dataclasses.replace(fixed, epochs=2)))
    known = checkpoints.load(tmp_path)
    checkpoints.save(dataclasses.replace(known, val_pixels_id="0" * 64), tmp_path / "last.pt")
    message = refusal(settings_of(betons, tmp_path, fixed))
    assert "has gone by other validation data" in message
    assert f"another --out with --init {tmp_path / 'last.pt'}" in message


def test_an_epoch_s_rate_is_of_all_its_parts(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its second step, and while it is validated."""
    settings = settings_of(betons, tmp_path, tiny("epochs=1", "warmup_epochs=0"))
    slept = 0.0

    def slowly(updater: Updater, *arguments: Any) -> Any:
        nonlocal slept
        slept += 0.3
        time.sleep(0.3)
        return real(updater, *arguments)

    real = Updater.step
    monkeypatch.setattr(Updater, "step", slowly)
    for where, name, call in ((Updater, "step", 2), (evaluate, "probabilities", 1)):
        with monkeypatch.context() as patch:
            stop = at_call(getattr(where, name), call, lambda: signal.raise_signal(signal.SIGTERM))
            patch.setattr(where, name, stop)
            with pytest.raises(SystemExit):
                loop.run(settings)
        time.sleep(2)
    loop.run(settings)
    (row,) = (row for row in metrics.read(tmp_path / metrics.FILE_NAME) if row["kind"] == "epoch")
    assert slept == pytest.approx(3 * 0.3)
    assert slept <= row["seconds"] < slept + 2
    assert row["images_per_s"] == pytest.approx(18 / row["seconds"])


def test_other_validation_data_is_refused_where_the_schedule_looked_at_it(
    betons: Path, recipe: Recipe, finished: Path
) -> None:
    changed = dataclasses.replace(checkpoints.load(finished), val_pixels_id="0" * 64)
    checkpoints.save(changed, finished / "last.pt")
    assert "other validation data" in refusal(settings_of(betons, finished, recipe))


def test_two_runs_do_not_share_a_folder(betons: Path, recipe: Recipe, tmp_path: Path) -> None:
    with only_run(tmp_path / ".lock", tmp_path):
        message = refusal(settings_of(betons, tmp_path, recipe))
    assert f"{tmp_path} is being written by another run" in message


@pytest.mark.parametrize(
    ("count", "patience"),
    [({}, 0), ({"SLURM_RESTART_COUNT": "0"}, 0)]
    + [({name: "1"}, loop.LEASE) for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")],
)
def test_a_run_that_is_started_again_waits_for_the_lock_of_a_dead_host(
    betons: Path,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: dict[str, str],
    patience: float,
) -> None:
    waited = []

    def locked(*_: Path, patience: float) -> Any:
        waited.append(patience)
        raise UserError("locked")

    for name, value in count.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(loop, "only_run", locked)
    assert refusal(settings_of(betons, tmp_path / "run", recipe)) == "locked"
    assert waited == [patience]


def test_validation_data_of_other_classes_is_refused(
    betons: Path, recipe: Recipe, tmp_path: Path
) -> None:
    for suffix in (".beton", ".json", ".records.npz"):
        shutil.copy(betons / f"val{suffix}", tmp_path / f"val{suffix}")
    card = handover.read_card(tmp_path / "val.json")
    classes = list(card.classes)
    classes[1] = dataclasses.replace(classes[1], wnid="n99999999")
    card = dataclasses.replace(card, classes=tuple(classes))
    handover.write_card(card, tmp_path / "val.json")
    settings = settings_of(betons, tmp_path / "run", recipe)
    message = refusal(dataclasses.replace(settings, val_beton=tmp_path / "val.beton"))
    assert "n99999999 in place of n90000002" in message
    assert not (tmp_path / "run").exists()


def test_a_stop_in_the_first_epoch_of_a_new_start_does_not_bring_the_old_run_back(
    betons: Path, recipe: Recipe, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished / "step-00000003.pt").write_bytes(b"")
    interrupt(monkeypatch, loop, "train_epoch", 1, settings_of(betons, finished, recipe, "never"))
    assert not list(finished.glob("*.pt"))


def test_going_on_from_another_run_does_not_replace_the_one_in_out(
    betons: Path, recipe: Recipe, finished: Path, straight: Path
) -> None:
    before = (finished / "last.pt").read_bytes()
    message = refusal(settings_of(betons, finished, recipe, str(straight)))
    assert f"{finished} holds a run that did not begin with --resume {straight}" in message
    assert (finished / "last.pt").read_bytes() == before


def test_weights_that_are_no_numbers_are_not_saved(
    betons: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Updater.step

    def spoil(updater: Updater, *arguments: Any) -> object:
        sums = real(updater, *arguments)
        with torch.no_grad():
            updater.network.get_parameter("fc8.bias")[0] = float("nan")
        return sums

    monkeypatch.setattr(epoch, "_check_finite", lambda *_: None)
    monkeypatch.setattr(Updater, "step", spoil)
    assert "is not finite after step" in refusal(settings_of(betons, tmp_path, recipe))
    assert not (tmp_path / "last.pt").exists()


def test_a_loss_that_is_no_number_is_not_saved_for_a_resumed_run_to_find(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16's scaler leaves such an update out: the weights are whole, the row to come is not."""
    real = Updater.step

    def spoil(updater: Updater, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return torch.full_like(real(updater, *arguments), float("nan"))

    monkeypatch.setattr(Updater, "step", spoil)
    message = refusal(settings_of(betons, tmp_path, tiny(), val=False))
    assert "the loss is not finite after step 1, learning rate" in message
    assert not (tmp_path / "last.pt").exists()


def test_a_run_without_a_rate_that_depends_on_the_end_may_be_extended(
    betons: Path, tmp_path: Path
) -> None:
    fixed = ("schedule=steps", "drop_epochs=[]")
    for epochs in (1, 2):
        recipe = tiny(*fixed, f"epochs={epochs}", "warmup_epochs=0")
        loop.run(settings_of(betons, tmp_path, recipe, val=False))
    assert [row["epoch"] for row in rows_of(tmp_path, "epoch")] == [1, 2]


def test_rates_by_layer_and_a_watched_training_loss_go_on_exactly(
    betons: Path, tmp_path: Path
) -> None:
    """The authors' network and update; a schedule that needs no validation data; conv1 freezes."""
    recipe = load_recipe(
        "authors-2012",
        [
            *("width=0.07", "batch=8", "epochs=4", "learning_rate=0.001", "noise_until=2"),
            *("schedule=reduce-on-plateau", "watch=loss", "patience=1", "drop_factor=0.5"),
            "threshold=0.9",  # no epoch is so much better: the rate halves for the fourth
            'layer_rates=[{layer="conv1", from_epoch=1, rate=0}]',
        ],
    )
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    loop.run(settings_of(betons, straight, recipe, val=False))
    for epochs in (1, 3, 4):
        part = dataclasses.replace(recipe, epochs=epochs)
        loop.run(settings_of(betons, stopped, part, val=False))
        weights = checkpoints.load(stopped).network["conv1.weight"]
        if epochs == 1:
            frozen = weights
        assert torch.equal(weights, frozen)
    assert_equal_runs(straight, stopped)
    assert [row["learning_rate"] for row in rows_of(straight, "epoch")] == [
        *[0.001] * 3,
        0.0005,
    ]
    assert [list(row) for row in checkpoints.load(straight).history] == [["loss"]] * 4


def test_a_beton_of_another_split_is_told_from_one_without_statistics(
    betons: Path, recipe: Recipe, tmp_path: Path
) -> None:
    settings = dataclasses.replace(
        settings_of(betons, tmp_path, recipe), beton=betons / "val.beton", val_beton=None
    )
    assert "val.beton is of the split val; training needs the one that" in refusal(settings)


def test_a_beton_of_one_class_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "src" / "cats").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "src" / "cats" / f"{number}.jpg").write_bytes(small_jpeg(number))
    build.build(find_source(tmp_path / "src"), tmp_path / "d", plan.Options(jobs=1))
    settings = dataclasses.replace(
        settings_of(tmp_path / "d", tmp_path / "run", recipe), val_beton=None
    )
    assert "train.beton has one class, cats: there is nothing to tell apart;" in refusal(settings)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_other_things_is_no_place_for_a_run(
    betons: Path, recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    (tmp_path / "file").touch()
    message = refusal(settings_of(betons, tmp_path / "pictures", recipe))
    assert "pictures holds other things than a run (train); give a folder that is new" in message
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["train"]
    message = refusal(settings_of(betons, tmp_path / "file", recipe))
    assert message == f"--out {tmp_path / 'file'} cannot be made: File exists; give another folder"


def test_a_val_beton_that_nobody_named_is_told_as_that(
    betons: Path, recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "src" / "cats").mkdir(parents=True)
    (tmp_path / "src" / "dogs").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / "src" / name / "0.jpg").write_bytes(small_jpeg(0))
    build.build(find_source(tmp_path / "src"), tmp_path / "d", plan.Options(jobs=1))
    for suffix in (".beton", ".json", ".records.npz"):
        shutil.copy(betons / f"val{suffix}", tmp_path / "d" / f"val{suffix}")
    told = "a val.beton beside the training data is taken unless --val-beton names another"
    settings = settings_of(tmp_path / "d", tmp_path / "run", recipe)
    message = refusal(settings)
    assert "val.beton has other classes than the training data: n90000001 in place of" in message
    assert message.endswith(told)
    message = refusal(dataclasses.replace(settings, val_beton=betons / "val.beton"))
    assert told not in message


def test_at_its_end_a_run_tells_its_best_epoch_and_what_shows_it(
    betons: Path, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.run(settings_of(betons, tmp_path, recipe))
    history = [row["val_top1_error"] for row in checkpoints.load(tmp_path).history]
    best = 1 + history.index(min(history))
    last = capsys.readouterr().err.splitlines()[-1]
    done = f"{len(history)} epochs done, the best by val_top1_error is epoch {best}; "
    assert last == f"{done}`train report {tmp_path}` shows the run"


def test_how_long_a_long_run_takes_is_told_once(
    betons: Path,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(epoch, "LONG", 0.0)
    loop.run(settings_of(betons, tmp_path, recipe))
    lines = [line for line in capsys.readouterr().err.splitlines() if "without validation" in line]
    assert len(lines) == 1
    assert re.fullmatch(
        rf"at [\d,]+ images/s training to epoch {recipe.epochs} takes \d+ s, without validation",
        lines[0],
    )
