"""`--json`: standard output is one JSON object, of failures too; the rest is on standard error."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import prep.cli
import prep.sources
import train.cli
from prep.beton import open_beton
from prep.program import TERMINATED, UserError

Call = Callable[..., tuple[object, dict[str, Any], str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with --json; gives its exit code, its object, its standard error."""

    def run(
        *arguments: str | Path, program: Callable[[], None] = prep.cli.main
    ) -> tuple[object, dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", ["prep", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as caught:
            program()
        said = capsys.readouterr()
        assert said.out.count("\n") == 1, said.out
        return caught.value.code, json.loads(said.out), said.err

    return run


def test_check(source: Path, call: Call) -> None:
    code, told, _ = call("check", source, "-j", 1)
    assert code == 0
    assert told["splits"]["train"]["images"] == 18
    assert told["contradictions"] == []
    assert told["notes"] == []
    _, told, err = call("check", source / "train", "-j", 1)
    assert [f"note: {note}" for note in told["notes"]] == err.splitlines()[:1]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("check",), "Missing argument 'SRC'."),
        (("check", "x", "--nosuch"), "No such option: --nosuch"),
        (("resize", "x", "y", "--size", "3"), "greater than or equal to 8"),
    ],
)
def test_a_wrong_option(call: Call, words: tuple[str, ...], wanted: str) -> None:
    code, told, err = call(*words)
    assert code == 2
    assert wanted in told["error"]
    assert err  # typer's own words


def test_what_sigterm_ends(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prep.sources, "find_source", lambda *_, **__: sys.exit(TERMINATED))
    code, told, err = call("check", "x")
    assert code == TERMINATED
    assert err == f"prep: {told['error']}\n"
    assert told["error"].startswith("ended by SIGTERM")


def test_check_of_what_contradicts_its_manifest(source: Path, call: Call) -> None:
    code, told, err = call("check", source, "--manifest", "imagenet-1k", "-j", 1, "--md5")
    assert code == 1
    assert told["error"] == err.splitlines()[-1].removeprefix("prep: ")
    assert any("n90000001" in sentence for sentence in told["contradictions"])
    assert f"contradiction: {told['contradictions'][0]}" in err


def test_prepare_measure_write_look(source: Path, tmp_path: Path, call: Call) -> None:
    """Every command's own figures agree with one another."""
    out, beton = tmp_path / "out", tmp_path / "train.beton"
    (tmp_path / "src").symlink_to(source)
    code, told, _ = call("resize", tmp_path / "src", out, "-j", 1)
    assert code == 0
    assert told["splits"]["train"] == {
        "path": str(out / "train"),
        "images": 18,
        "rejected": 0,
        "already_done": False,
        "done_now": 18,
    }
    measured = call("stats", out / "train", "-j", 1, "--png", tmp_path / "s.png")[1]
    assert (measured["images"], measured["measured_now"]) == (18, 18)
    assert len(measured["axes"]) == 3
    assert (tmp_path / "s.png").exists()
    made = call("write-beton", out / "train", beton, "-j", 1)[1]
    assert made["bytes"] == beton.stat().st_size
    verified = call("verify", beton, "-j", 1)[1]
    assert verified["sha256"] == made["sha256"]
    assert verified["pixels_id"] == made["pixels_id"] == measured["pixels_id"]
    seen = call("inspect", beton)[1]
    assert (seen["sha256"], seen["samples"]) == (made["sha256"], 18)
    assert [entry["samples"] for entry in seen["classes"]] == [6, 6, 6]
    code, told, _ = call("build", tmp_path / "src", tmp_path / "dest", "-j", 1)
    assert told["splits"]["val"]["path"] == str(tmp_path / "dest" / "val.beton")


def test_too_many_rejects(source: Path, tmp_path: Path, call: Call) -> None:
    broken = Path(shutil.copytree(source, tmp_path / "src"))
    for path in sorted(broken.rglob("*.JPEG"))[:5]:
        path.write_bytes(b"no picture")
    code, told, err = call("resize", broken, tmp_path / "out", "-j", 1)
    assert code == 1
    assert "were rejected, more than --max-rejects" in told["error"]
    assert told["error"] in err
    code, told, _ = call("resize", broken, tmp_path / "out", "-j", 1, "--max-rejects", "1")
    assert code == 0
    assert sum(split["rejected"] for split in told["splits"].values()) == 5
    assert told["rejects"] == str(tmp_path / "out" / "rejects.jsonl")


def test_damage(copied: Path, call: Call) -> None:
    beton = copied / "train.beton"
    data = bytearray(beton.read_bytes())
    data[-100_000] ^= 1  # padding
    data[int(open_beton(beton).layout.ptr[7])] ^= 1
    beton.write_bytes(data)
    code, told, err = call("verify", beton, "-j", 1)
    assert (code, set(told)) == (1, {"error", "damaged_places", "damaged"})
    assert told["damaged_places"] == 2
    place, padding = told["damaged"]
    assert (place["sample"], padding["sample"]) == (7, None)
    assert f"sample {place['sample']} of class {place['wnid']} ({place['name']})" in told["error"]
    assert f"at offset {place['offset']}: {place['fault']}" in told["error"]
    assert str(beton) in told["error"]
    assert err == f"prep: {told['error']}\n"


@pytest.mark.parametrize("command", ["verify", "inspect", "stats"])
def test_what_is_not_there(command: str, tmp_path: Path, call: Call) -> None:
    code, told, _ = call(command, tmp_path / "gone.beton")
    assert code == 1
    assert "gone.beton" in told["error"]


def test_a_fault_of_the_program(copied: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("prep.verify.verify", fail)
    code, told, _ = call("verify", copied / "train.beton")
    assert code == 1
    assert "ZeroDivisionError: by zero" in told["error"]


def test_train_s_failures_too(tmp_path: Path, call: Call) -> None:
    gone = tmp_path / "gone"
    code, told, _ = call("eval", gone, "--beton", gone, program=train.cli.main)
    assert code == 1
    assert str(gone) in told["error"]


def test_an_error_s_findings_survive_a_process_s_end() -> None:
    error = pickle.loads(pickle.dumps(UserError("what", found={"a": 1})))
    assert str(error) == "what"


def test_every_command_with_a_result_has_it() -> None:
    groups = get_command(prep.cli.app), get_command(train.cli.app)
    have = {
        name
        for group in groups
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        if any("--json" in parameter.opts for parameter in command.params)
    }
    of_prep = {"check", "resize", "build", "stats", "write-beton", "verify", "inspect"}
    assert have == of_prep | {"eval", "classify", "bench"}
