"""The commands of README and docs, run in an empty folder on drawn pictures, end to end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import curves, measured

ROOT = Path(__file__).resolve().parent.parent
PAGES = measured.pages()
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
PROGRAMS = Path(sys.executable).parent
# A minute's training in place of days: appended to the README's command.
SMALL = "--recipe demo --set epochs=1 --set width=0.1 --set warmup_epochs=0.1"


def readme_commands() -> list[str]:
    """Every line of the README's ```sh blocks that calls prep or train, `&&` taken apart."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [part.strip() for block in blocks for part in re.split(r"\n|&&", block)]
    return [line for line in lines if line.startswith(("prep ", "train "))]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ILSVRC2012/ (drawn), class folders, two photos; after all of the README's commands."""
    folder = tmp_path_factory.mktemp("readme")
    drawn = shell("prep sample ILSVRC2012 --classes 3 --per-class 40 --val-per-class 5", folder)
    assert drawn.returncode == 0, drawn.stderr
    originals = sorted((folder / "ILSVRC2012" / "val").glob("*/*.JPEG"))
    for number in (1, 2):
        (folder / f"photo{number}.jpg").write_bytes(originals[number].read_bytes())
    shutil.copytree(folder / "ILSVRC2012" / "val", folder / "PICTURES")
    for command in readme_commands():
        small = f"{command} {SMALL}" if command.startswith("train run") else command
        if small != command and "--out" not in command:
            small += " --out runs/paper"
        done = shell(small, folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return folder


def test_the_curves_are_those_of_the_results(tmp_path: Path) -> None:
    curves.save(tmp_path / "curves.png")
    drawn, shown = (
        np.asarray(Image.open(path).convert("RGB"), np.int16)
        for path in (tmp_path / "curves.png", curves.PICTURE)
    )
    assert drawn.shape == shown.shape
    assert np.abs(drawn - shown).mean() < 0.5  # grey levels: another matplotlib's letters


def test_the_readme_shows_every_command() -> None:
    shown = {tuple(command.split()[:2]) for command in readme_commands()}
    assert shown >= {
        ("prep", "resize"),
        ("prep", "build"),
        ("prep", "stats"),
        ("prep", "write-beton"),
        ("train", "run"),
        ("train", "eval"),
        ("train", "classify"),
        ("train", "export"),
        ("train", "report"),
        ("train", "recipes"),
    }
    for command in ("prep verify", "prep inspect", "prep sample"):
        assert f"`{command} " in " ".join(README.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_measured_parts_are_those_of_the_results(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == measured.filled(page)  # else: make readme


def test_every_measured_part_is_shown() -> None:
    assert sorted(re.findall(r"<!-- measured: (.+?) -->", README)) == sorted(measured.PARTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        headings = (
            re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M) if anchor else []
        )
        slugs = [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings]
        assert anchor in ("", *slugs), target


def test_the_truncated_picture_is_rejected_and_named(folder: Path) -> None:
    lines = (folder / "OUT" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [
        "the JPEG is truncated (--on-truncated accept takes what is left)"
    ]


def test_every_other_picture_reaches_the_beton(folder: Path) -> None:
    card = json.loads((folder / "train.json").read_text())
    assert card["samples"] == 3 * 40 - 1
    assert json.loads((folder / "val.json").read_text())["samples"] == 3 * 5


def test_the_run_has_learned_and_written_what_the_readme_says(folder: Path) -> None:
    run = folder / "runs" / "paper"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epoch = next(row for row in rows if row["kind"] == "epoch")
    assert 0 <= epoch["val_top1_error"] <= 1
    assert (run / "last.pt").stat().st_size > 0
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert (folder / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_tables_and_the_export_are_where_the_readme_says(folder: Path) -> None:
    for name in ("per_class.csv", "confusions.csv", "categories.csv"):
        assert f"`{name}`" in README
        assert (folder / "tables" / name).read_text(encoding="utf-8").count("\n") > 1
    assert (folder / "runs" / "paper" / "last.onnx").stat().st_size > 0


def test_the_report_is_where_the_readme_says(folder: Path) -> None:
    page = (folder / "runs" / "paper" / "report.html").read_text(encoding="utf-8")
    assert "Not shown." not in page


def test_the_lines_of_python_run(folder: Path) -> None:
    lines = re.findall(r"`(python -c \".*?\")`", README)
    assert len(lines) == 2
    printed = [shell(line, folder) for line in lines]
    assert [done.stderr for done in printed] == ["", ""]
    assert len(printed[0].stdout.strip("[] \n").split()) == 3
    rows = (folder / "train.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].replace('"', "") == "name,label"
    assert len(rows) == 1 + 3 * 40


def test_verify_inspect_and_a_second_resize_agree(folder: Path) -> None:
    verified = shell("prep verify train.beton", folder)
    assert verified.returncode == 0, verified.stderr
    assert json.loads((folder / "train.json").read_text())["sha256"] in verified.stdout
    inspected = shell("prep inspect train.beton --png sheet.png", folder)
    assert inspected.returncode == 0, inspected.stderr
    again = shell("prep resize ILSVRC2012 OUT", folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already prepared") == 2


def test_messages_of_the_troubleshooting_table_are_in_the_code() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in [*ROOT.glob("prep/**/*.py"), *ROOT.glob("train/*.py"), ROOT / "setup.sh"]
    )
    code = re.sub(r'"\s*f?"', "", code)  # adjacent string literals as one
    for phrase in (
        "has no class folders; expected",
        "were rejected, more than --max-rejects",
        "give another folder than",
        "is being written by another run",
        "no Dask scheduler answers at",
        "this command has",
        "does not see",
        "the run that this worker belongs to is over (",
        "has lost the others (",
        "cut short or damaged",
        "is not as it was written",
        "is of other data",
        "stops improving, and there is no validation data",
        "this command says",
        "finds no such device here",
        "the loss is",
        "compiling the pipeline",
        "its crc32 is not the one that was written",
        "no batch for",
        "setup: missing",
    ):
        assert phrase in README, phrase
        assert phrase in code, phrase
