"""The `train` program: help, exit codes, one-line failures, `run` and `recipes` from end to end."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from train_program import ONE_THREAD, TINY, call, failure
from typer.testing import CliRunner

from train import __version__, cli, options
from train import metrics as run_metrics
from train.dataset import open_dataset
from train.recipe import load_recipe, recipe_names, recipe_text

HELP_SECONDS = 0.5  # of processor time, the design's limit
LOADED_MACHINE = 2.0  # factor on it where others compute too
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]

pytestmark = pytest.mark.usefixtures("threads_as_they_were")

# --------------------------------------------------------------------------- help


def test_the_commands_are_those_of_the_design() -> None:
    assert {"run", "eval", "classify", "export", "recipes"} <= set(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(command: str, option: str) -> None:
    result = CliRunner().invoke(cli.app, [*command.split(), option])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_says_what_it_does(command: str) -> None:
    described = typer.main.get_command(cli.app).commands[command]  # type: ignore[attr-defined]
    assert described.help
    for parameter in described.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert parameter.help, f"{command}: {parameter.opts}"


def test_without_a_command_the_help_shows_and_the_exit_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call() == 2
    assert "Usage:" in "".join(capsys.readouterr())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"train {__version__}\n"


def test_help_answers_at_once() -> None:
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "train.cli", "--help"]
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < HELP_SECONDS * LOADED_MACHINE


def test_the_program_starts_without_its_heavy_parts() -> None:
    code = "import json, sys, train.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    loaded = set(json.loads(done.stdout))
    assert "typer" in loaded
    heavy = {"torch", "numpy", "ffcv", "numba", "cv2", "matplotlib", "tensorboard", "PIL"}
    assert not loaded & heavy


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--beton", "x", "--no-such-option"],
        ["run", "--beton", "x", "--workers", "0"],
        ["run", "--beton", "x", "--device", "tpu"],
        ["eval", "x", "--beton", "y", "--views", "3"],
        ["eval", "x", "--beton", "y", "--batch", "0"],
        ["classify", "x"],
        ["classify", "x", "y", "-k", "0"],
        ["classify", "x", "y", "--views", "all"],
        ["export", "x", "--format", "keras"],
        ["recipes", "demo", "paper"],
        ["no-such-command"],
    ],
)
def test_a_wrong_option_exits_2(arguments: list[str]) -> None:
    assert call(*arguments) == 2


def test_a_missing_beton_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "absent.beton"
    line = failure(capsys, "run", "--beton", path, "--out", tmp_path / "run", *TINY)
    assert str(path) in line
    assert not (tmp_path / "run").exists()


def test_a_missing_validation_beton_is_named_before_the_seconds_of_imports(
    betons: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "train.device", None)  # importing it would fail
    path, beton = tmp_path / "absent.beton", betons / "train.beton"
    line = failure(capsys, "run", "--beton", beton, "--val-beton", path, *TINY)
    assert line.startswith(f"{path} does not exist; give")


def test_a_cut_beton_is_named(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "train.beton"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    line = failure(capsys, "run", "--beton", path, "--out", tmp_path / "run", *TINY)
    assert str(path) in line
    assert "cut short" in line


def test_an_unknown_recipe_and_an_unknown_key(
    betons: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton = ["--beton", betons / "train.beton"]
    assert "'papers'" in failure(capsys, "run", *beton, "--recipe", "papers")
    assert "did you mean epochs?" in failure(capsys, "run", *beton, "--set", "epoch=3")
    assert "write key=value" in failure(capsys, "run", *beton, "--set", "epochs")


def test_a_schedule_without_its_validation_data(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in copied.glob("val.*"):
        path.unlink()
    out = tmp_path / "run"
    line = failure(capsys, "run", "--beton", copied / "train.beton", "--out", out)
    assert "--val-beton" in line
    assert "schedule=steps" in line


def test_val_beton_beside_the_training_data_is_used(run_folder: Path) -> None:
    rows = run_metrics.read(run_folder / run_metrics.FILE_NAME)
    assert all("val_top1_error" in row for row in rows if row["kind"] == "epoch")


def test_a_missing_run(betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["eval", "--beton", betons / "val.beton"],
        ["classify", tmp_path / "a.jpg"],
        ["export"],
    ):
        line = failure(capsys, command[0], tmp_path / "absent", *command[1:])
        assert str(tmp_path / "absent") in line


@pytest.mark.parametrize("before", [True, False])
def test_debug_anywhere_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    from prep.program import UserError

    command = ["eval", str(tmp_path / "absent"), "--beton", "val.beton"]
    command = ["--debug", *command] if before else [*command, "--debug"]
    monkeypatch.setattr(sys, "argv", ["train", *command])
    with pytest.raises(UserError, match="does not exist"):  # Python prints its traceback
        cli.main()


def test_a_failure_of_its_own_process_has_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.cli", "recipes", "nothing"]
    for debug, shown in (([], False), (["--debug"], True)):
        done = subprocess.run(
            [*command, *debug], check=False, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert ("Traceback" in done.stderr) is shown
        assert "'nothing'" in done.stderr


# --------------------------------------------------------------------------- the commands


def test_run_prints_the_checkpoint_and_resumes(
    run_folder: Path, betons: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton = betons / "train.beton"
    assert call("run", "--beton", beton, "--out", run_folder, *TINY, *ONE_THREAD) == 0
    out, err = capsys.readouterr()
    assert out == f"{run_folder / 'last.pt'}\n"
    assert "has finished" in err


def test_resume_never_throws_away_nothing_that_this_run_has_done(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun and SLURM start the same command again."""
    command = ["run", "--beton", betons / "train.beton", "--out", tmp_path, *TINY, *ONE_THREAD]
    assert call(*command, "--resume", "never") == 0
    first = (tmp_path / "last.pt").stat().st_mtime_ns
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert call(*command, "--resume", "never") == 0
    assert (tmp_path / "last.pt").stat().st_mtime_ns == first
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert call(*command, "--resume", "never") == 0
    assert (tmp_path / "last.pt").stat().st_mtime_ns > first


def test_a_damaged_record_ends_a_run_with_its_name(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton = copied / "train.beton"
    with beton.open("r+b") as file:
        file.seek(int(open_dataset(beton).records.ptr[11]) + 500)
        file.write(b"\0\0\0\0")
    assert call("run", "--beton", beton, "--out", tmp_path / "run", *TINY, *ONE_THREAD) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"train: {beton}: sample 11 ")
    assert "its crc32 is not the one that was written" in last
    assert not (tmp_path / "run" / "last.pt").exists()
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert log[-1].endswith(f"ended: {last.removeprefix('train: ')}")


def test_a_run_says_whether_the_pipeline_was_compiled_or_loaded_and_how_long_that_took(
    betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton = betons / "train.beton"
    assert call("run", "--beton", beton, "--out", tmp_path / "run", *TINY, *ONE_THREAD) == 0
    said = capsys.readouterr().err
    assert "compiling the pipeline, unless an earlier run has left it on disk ..." in said
    assert re.search(r"pipeline (compiled|loaded), first batch read: \d+\.\d s", said)


def test_a_summary_of_the_network_is_printed_and_changes_nothing(
    run_folder: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton, out = betons / "train.beton", tmp_path / "run"
    arguments = ["--beton", beton, "--out", out, "--summary", *TINY, *ONE_THREAD]
    assert call("run", *arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("layer "))
    assert lines[first + 1].split()[:2] == ["conv1", "Conv2d"]
    assert any(line.startswith("all  ") for line in lines[first:])
    with_, without = (
        torch.load(folder / "last.pt", weights_only=True)["network"] for folder in (out, run_folder)
    )
    assert all(torch.equal(with_[name], without[name]) for name in without)


def test_recipes_lists_all_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(load_recipe(line.split()[0]).about in line for line in lines)
    assert call("recipes", "paper") == 0
    assert capsys.readouterr().out == recipe_text("paper")


def test_a_printed_recipe_is_a_recipe_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("recipes", "paper") == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(str(path)) == load_recipe("paper")


def test_an_unknown_recipe_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are authors-2012, " in failure(capsys, "recipes", "nothing")


@pytest.mark.parametrize(("times", "epoch_step"), [(1, 1), (2, 0)])
def test_ctrl_c_ends_with_130_and_leaves_nothing_half_written(
    betons: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    times: int,
    epoch_step: int,
) -> None:
    """Once: the step ends and is kept. Twice: at once, and the epoch's beginning is kept."""
    from train.step import Updater

    steps = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:  # the first of the second epoch
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    step = Updater.step
    monkeypatch.setattr(Updater, "step", interrupted)
    command = ["run", "--beton", betons / "train.beton", "--out", tmp_path, *TINY, *ONE_THREAD]
    assert call(*command) == 130  # 128 + SIGINT
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1/2" in err
    assert "Traceback" not in err
    kept = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (kept["epoch"], kept["epoch_step"]) == (1, epoch_step)
    assert not list(tmp_path.glob("*.partial"))


def test_loading_is_told_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options.load_torch()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    options.load_torch()
    assert capsys.readouterr().err == "loading torch and FFCV ...\r\x1b[K"
