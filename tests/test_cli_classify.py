"""`train classify` from end to end: what is printed, files, folders, standard input."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from train_program import call, failure

from train import figures

pytestmark = pytest.mark.usefixtures("threads_as_they_were")

CLASSES = {"n90000001": "first", "n90000002": "second", "n90000003": "third"}
CPU = ["--device", "cpu"]


@pytest.fixture
def pictures(source: Path) -> list[Path]:
    return sorted((source / "val").glob("*/*.JPEG"))


def stdin_of(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_the_best_classes_are_printed_and_saved(
    run_folder: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "shown.png"
    arguments = [run_folder / "last.pt", *pictures[:2], "-k", 2, "--png", png, *CPU]
    assert call("classify", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[3], lines[6]] == [*map(str, pictures[:2]), f"predictions: {png}"]
    for line in (*lines[1:3], *lines[4:6]):
        share, wnid, name = line.split()
        assert 0 < float(share.removesuffix("%")) <= 100
        assert CLASSES[wnid] == name
    with Image.open(png) as shown:
        assert shown.format == "PNG"
        assert np.asarray(shown).std() > 10  # not blank


def test_a_class_that_is_called_as_its_folder_is_printed_once(
    run_folder: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = torch.load(run_folder / "last.pt", weights_only=True)
    values["data"]["names"] = ["n90000001", "second", "third"]
    torch.save(values, tmp_path / "last.pt")
    assert call("classify", tmp_path / "last.pt", pictures[0], *CPU) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(line[1:] for line in lines) == [
        ["n90000001"],
        ["n90000002", "second"],
        ["n90000003", "third"],
    ]


def test_a_picture_of_predictions_has_its_limit(
    run_folder: Path,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(figures, "MOST", 1)
    png = tmp_path / "shown.png"
    assert call("classify", run_folder, *pictures[:2], "--png", png, "--json", *CPU) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == f"predictions: {png}, the first 1\n"


def test_json_has_a_line_a_picture_with_what_is_printed(
    run_folder: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("classify", run_folder, *pictures[:2], *CPU) == 0
    printed = capsys.readouterr().out.splitlines()
    assert call("classify", run_folder, *pictures[:2], "--json", *CPU) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [found["path"] for found in objects] == [*map(str, pictures[:2])]
    for number, found in enumerate(objects):
        lines = [
            f"  {each['probability']:7.2%}  {each['wnid']}  {each['name']}"
            for each in found["classes"]
        ]
        assert lines == printed[4 * number + 1 : 4 * number + 4]
        assert sorted(each["label"] for each in found["classes"]) == [0, 1, 2]
        assert all(CLASSES[each["wnid"]] == each["name"] for each in found["classes"])


def test_more_views_are_averaged(
    run_folder: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shares = set()
    for views in (1, 5, 10):
        assert call("classify", run_folder, pictures[0], "--views", views, "--json", *CPU) == 0
        shares.add(json.loads(capsys.readouterr().out)["classes"][0]["probability"])
    assert len(shares) == 3


def test_folders_files_and_standard_input_are_the_same_pictures(
    run_folder: Path,
    source: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("classify", run_folder, *pictures, *CPU) == 0
    wanted = capsys.readouterr()
    assert call("classify", run_folder, source / "val", *CPU) == 0
    assert capsys.readouterr() == wanted
    stdin_of(b"\n".join(os.fsencode(path) for path in pictures), monkeypatch)
    assert call("classify", run_folder, "-", *CPU) == 0
    assert capsys.readouterr() == wanted
    last = pictures[0].parent.parent / pictures[-1].parent.name
    stdin_of(b"%s\r\n\n%s\n" % tuple(os.fsencode(path) for path in pictures[:2]), monkeypatch)
    assert call("classify", run_folder, "-", *pictures[2:-3], last, *CPU) == 0
    assert capsys.readouterr() == wanted


def test_a_file_that_is_no_picture_is_named_and_the_others_go_on(
    run_folder: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes, absent = tmp_path / "notes.txt", tmp_path / "absent.jpg"
    notes.write_text("not a picture")
    arguments = [run_folder, pictures[0], notes, absent, pictures[1], *CPU]
    assert call("classify", *arguments) == 1
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        *map(str, pictures[:2])
    ]
    first, second, last = err.splitlines()
    assert first.startswith(f"{notes}: ")
    assert second.startswith(f"{absent} cannot be read: No such file")
    assert last.startswith("train: 2 of 4 pictures could not be classified")

    assert call("classify", *arguments, "--json") == 1
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [found["path"] for found in objects] == [*map(str, arguments[1:5])]
    assert ["error" in found for found in objects] == [False, True, True, False]
    assert objects[1]["error"] == first


def test_a_folder_without_pictures(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{tmp_path} has no pictures" in failure(capsys, "classify", run_folder, tmp_path, *CPU)


def test_a_png_that_cannot_be_written(
    run_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "absent" / "shown.png"
    assert call("classify", run_folder, pictures[0], "--png", target, *CPU) == 1


def test_a_picture_is_not_written_over(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "mine.png"
    Image.new("RGB", (300, 300)).save(png)
    before = png.read_bytes()
    for named in (png, tmp_path):
        line = failure(capsys, "classify", run_folder, named, "--png", png, *CPU)
        assert f"--png {png} is one of the pictures" in line
    assert png.read_bytes() == before
