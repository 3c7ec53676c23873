"""`train report`: what is on the page, that names are only text, what is said when things lack."""

from __future__ import annotations

import dataclasses
import html.parser
import importlib.metadata
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ODD_NAMES
from hypothesis import given
from hypothesis import strategies as st
from train_program import ONE_THREAD, call, failure

from prep import manifest
from prep.program import UserError, visible
from train import checkpoint as checkpoints
from train import metrics, networks, provenance
from train.dataset import open_dataset
from train.evaluate import views_of
from train.recipe import Recipe, load_recipe, recipe_names, recipe_text
from train.report import (
    curves,
    drawing,
    gather,
    headline,
    kernels,
    neighbours,
    published,
    recipe_values,
    sections,
)
from train.report import page as page_module
from train.report.data import Missing, read_pictures, spread, training_data, validation_data
from train.screen import Screen

pytestmark = pytest.mark.usefixtures("threads_as_they_were")

SECTIONS = [
    *("results", "curves", "speed", "samples", "kernels", "predictions", "neighbours"),
    *("classes", "confusions", "statistics", "recipe", "origin"),
]
OF_VALIDATION = {"predictions", "neighbours", "classes", "confusions"}
EVIL = "<script>alert(1)</script>"
LIMIT = 5_000_000  # bytes of a report


class Page(html.parser.HTMLParser):
    """Tags and the text of each section."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, str] = {"": ""}
        self._section = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.text[self._section] = ""

    def handle_data(self, data: str) -> None:
        self.text[self._section] += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    @property
    def missing(self) -> set[str]:
        return {section for section, text in self.text.items() if "Not shown. " in text}


def report(out: Path, *arguments: object) -> Page:
    assert call("report", *arguments, "--out", out, *ONE_THREAD) == 0
    assert not list(out.parent.glob("*.partial"))
    return Page(out)


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of the run as it is."""
    return report(tmp_path_factory.mktemp("report") / "whole.html", run_folder)


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A copy, for changing."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def change_checkpoint(run: Path, **changes: Any) -> None:
    values = torch.load(run / "last.pt", weights_only=True)
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    torch.save(values, run / "last.pt")


def change_rows(run: Path, change: Any) -> None:
    path = run / metrics.FILE_NAME
    rows = [change(row) for row in metrics.read(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row))


def change_start(run: Path, **changes: Any) -> None:
    path = run / provenance.FILE_NAME
    values = json.loads(path.read_text())
    values["starts"][-1] |= changes
    path.write_text(json.dumps(values))


def test_every_section_is_there_and_the_contents_lead_to_it(page: Page) -> None:
    assert [name for name in page.text if name] == SECTIONS
    assert page.missing == set()
    links = [link for link in page.attributes("href") if not link.startswith("data:")]
    assert set(SECTIONS) <= {link.removeprefix("#") for link in links}
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_the_page_asks_for_no_other_file(page: Page) -> None:
    for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
        assert all(value.startswith(("data:image/", "#")) for value in page.attributes(name))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert not any("url(" in value.replace("url(#", "") for value in page.attributes("style"))


def test_every_picture_says_what_it_is(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) > 50
    assert all(attributes["alt"].strip() for attributes in pictures)
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    titles = ["Loss", "Top-1 error", "Top-5 error", "Learning rate", "Images a second"]
    assert [each["aria-label"] for each in drawn][:5] == titles


def test_figures_are_those_of_eval_and_of_the_run(
    page: Page, run_folder: Path, betons: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beton = betons / "val.beton"
    assert call("eval", run_folder, "--beton", beton, "--views", 10, "--json", *ONE_THREAD) == 0
    views = json.loads(capsys.readouterr().out)["views"]
    for figures in views.values():
        shown = f"{figures['top1_error']:.2%}{figures['top5_error']:.2%}{figures['loss']:.4f}"
        assert shown in page.text["results"].replace("\n", "")
    for row in metrics.read(run_folder / metrics.FILE_NAME):
        if row["kind"] == "epoch":
            assert f"{row['loss']:.4f}" in page.text["curves"]
            assert f"{row['val_loss']:.4f}" in page.text["curves"]
    assert "40.7%18.2%" in page.text["results"]
    assert "say nothing about this run" in page.text["results"]


def test_views_are_told_right_behind_the_row_that_is_by_them(page: Page) -> None:
    """Rows of one checkpoint differ by them alone, and a narrow window shows the first columns."""
    assert "whatviewstop-1 error" in page.text["results"]
    assert all(
        f"this run, last.pt after 2 epochs{views}" in page.text["results"] for views in (1, 10)
    )


def test_the_page_says_what_validation_decided(page: Page) -> None:
    text = " ".join(page.text["results"].split())
    assert "best.pt is the checkpoint of epoch" in text
    assert "by the lowest validation top-1 error of 2 epochs" in text


def test_recipe_and_origin(page: Page, run_folder: Path, betons: Path) -> None:
    recipe, origin = page.text["recipe"], page.text["origin"]
    assert "demo, with width = 0.07, batch = 8, epochs = 2" in page.text[""]
    assert "changed for this run; the recipe has 0.25: ours: a sixteenth of the arith" in recipe
    assert "plateau, reduce-on-plateau and steps only" in recipe
    start = provenance.read(run_folder / provenance.FILE_NAME)[0]
    assert f"train run --beton {betons / 'train.beton'}" in origin
    assert f"torch {importlib.metadata.version('torch')}" in origin
    assert re.search(r"train \d+\.\d+\.\d+ of code [0-9a-f]{12}, ", origin)
    card = json.loads((betons / "train.json").read_text())
    assert card["sha256"] in origin
    assert start.train.card == {k: v for k, v in card.items() if k != "checksum"} | {"classes": 3}


def test_hashes_are_in_one_line_of_equal_letters(page: Page) -> None:
    hashes = [attributes for tag, attributes in page.tags if attributes.get("class") == "hash"]
    assert len(hashes) == 2 * 4  # of the training and of the validation data
    style = page_module.environment().get_template("page.css").render()
    assert re.search(r"code\.hash {[^}]*white-space: nowrap", style)


def test_names_are_only_text(run: Path, tmp_path: Path) -> None:
    change_checkpoint(
        run, data={"names": [EVIL, *ODD_NAMES[:1], "\udcff\N{RIGHT-TO-LEFT OVERRIDE}"]}
    )
    change_start(run, command=EVIL, recipe_text=f"# {EVIL}\n", folder=EVIL)
    evil = run.rename(tmp_path / "<img src=x onerror=alert(1)>")
    path = tmp_path / "page.html"
    page = report(path, evil, evil, "--views", 1)
    assert not any(tag == "script" for tag, _ in page.tags)
    assert not page.attributes("onerror")
    assert "<img src=x onerror=alert(1)>" in page.text[""]
    for section in ("samples", "predictions", "classes", "origin", "recipe"):
        assert EVIL in page.text[section]
    assert "two\\nlines" in page.text["samples"]
    assert "\\udcff\\u202e" in page.text["samples"]
    assert path.stat().st_size < LIMIT


@pytest.mark.parametrize("name", [EVIL, *ODD_NAMES, "\udcff", "{{ 1 }}", "&amp;"])
def test_a_name_is_one_line_of_text(name: str) -> None:
    shown = str(page_module.environment().from_string("<b>{{ name }}</b>").render(name=name))
    parser = html.parser.HTMLParser(convert_charrefs=True)
    found: list[str] = []
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(shown)
    parser.close()
    assert "".join(found) == visible(name)
    assert shown.count("<") == 2
    shown.encode()


def test_without_its_data_the_rest_is_shown(run: Path, tmp_path: Path) -> None:
    gone = {"path": str(tmp_path / "gone.beton"), "card": {"samples": 18}}
    change_start(run, train=gone, val=gone)
    page = report(tmp_path / "page.html", run)
    assert page.missing == {"results", "samples", "statistics"} | OF_VALIDATION
    assert f"{tmp_path / 'gone.beton'} does not exist" in page.text["samples"]
    assert "--val-beton FILE.beton names it" in page.text["predictions"]
    assert "as validated after epoch" in page.text["results"]
    assert any(attributes.get("aria-label") == "Loss" for _, attributes in page.tags)


def test_other_data_in_its_place_is_not_taken(run: Path, betons: Path) -> None:
    change_start(run, train={"path": str(betons / "val.beton"), "card": {"samples": 18}})
    (gathered,) = gather.gather([run])
    found = training_data(gathered, None)
    assert isinstance(found, Missing)
    assert "holds other data (pixels_id" in found.reason
    with pytest.raises(UserError, match="holds other data"):
        training_data(gathered, betons / "val.beton")
    assert not isinstance(training_data(gathered, betons / "train.beton"), Missing)
    assert not isinstance(validation_data(gathered, betons / "train.beton"), Missing)


def test_a_run_of_an_older_program_without_validation(run: Path, tmp_path: Path) -> None:
    """Neither run.json nor figures of validation; both epochs' rows have those of training."""
    (run / provenance.FILE_NAME).unlink()
    change_checkpoint(run, val_pixels_id="")
    change_rows(run, lambda row: {k: v for k, v in row.items() if not k.startswith("val_")})
    page = report(tmp_path / "page.html", run)
    assert "Validation data has decided nothing" in page.text["results"]
    assert "while it trained, epoch 2" in page.text["results"]
    assert "does not say where its data is" in page.text["predictions"]
    assert "has no run.json" in page.text["origin"]
    assert "He et al. 2015" in page.text["recipe"]


def test_in_the_first_epoch_without_validation_data(run: Path, tmp_path: Path) -> None:
    change_checkpoint(run, epoch=0, epoch_step=1, step=1, history=[])
    change_rows(run, lambda row: row if row["kind"] == "step" else None)
    change_start(run, train={"path": "gone", "card": {"samples": 18}}, val=None)
    page = report(tmp_path / "page.html", run)
    assert "last.pt after 0 epochs and 1 step" in page.text[""]
    assert "No epoch of this run has ended yet" in page.text["curves"]
    assert "The run had no validation data" in page.text["classes"]
    assert any(attributes.get("aria-label") == "Loss" for _, attributes in page.tags)


def test_killed_before_its_first_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / metrics.FILE_NAME).touch()
    line = failure(capsys, "report", tmp_path)
    assert f"{tmp_path / 'last.pt'} does not exist" in line
    (tmp_path / "last.pt").touch()
    (tmp_path / metrics.FILE_NAME).unlink()
    assert f"{tmp_path} has no metrics.jsonl" in failure(capsys, "report", tmp_path)


def test_validation_by_the_training_pictures_is_told(run: Path, tmp_path: Path) -> None:
    values = torch.load(run / "last.pt", weights_only=True)
    text = report(tmp_path / "page.html", run).text["results"]
    assert "was trained on" not in text
    change_checkpoint(run, val_pixels_id=values["data"]["pixels_id"])
    text = report(tmp_path / "page.html", run).text["results"]
    assert "validated on the very pictures that it was trained on" in text


def test_several_runs_and_many_classes(
    run: Path, run_folder: Path, betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "CLASSES", 2)
    monkeypatch.setattr(sections, "HALF", 1)
    change_checkpoint(
        run, recipe={"name": "mine", "batch": 4, "schedule": "steps"}, val_pixels_id="ab" * 32
    )
    page = report(
        tmp_path / "page.html", run_folder, run, "--smooth", 2, "--val-beton", betons / "val.beton"
    )
    text = page.text["runs"]
    assert "batch84" in text.replace("\n", "")
    assert "scheduleone-cyclesteps" in text.replace("\n", "")
    assert "were not validated on the same images" in text
    common = os.path.commonpath([run_folder, run])
    for name in (run_folder.relative_to(common), run.relative_to(common)):
        assert f"{name}: validation" in page.text["curves"]
    assert common not in page.text["curves"]
    assert "moving averages over 2 epochs" in page.text["curves"]
    assert "Top-1 error by class" in page.text["classes"]
    hardest, easiest = page.text["classes"].split("The easiest")
    assert "The hardest" in hardest
    shares = [float(share) for share in re.findall(r"3 (\d+\.\d)%", " ".join(hardest.split()))]
    assert len(shares) == 1
    assert f"{100 - shares[0]:.1f}%" in hardest
    assert "The hardest" not in easiest


def test_smoothed_labels_are_said_where_their_loss_is_shown(
    page: Page, run: Path, run_folder: Path, tmp_path: Path
) -> None:
    said = "Training loss is by smoothed labels, validation loss by the labels themselves"
    assert said not in page.text["curves"]
    change_checkpoint(run, recipe={"label_smoothing": 0.1})
    gone = {"path": str(tmp_path / "gone.beton"), "card": {"samples": 18}}
    change_start(run, train=gone, val=gone)
    out = tmp_path / "page.html"
    assert said in report(out, run).text["curves"]
    alike, different = report(out, run, run), report(out, run, run_folder)
    assert said in alike.text["curves"]
    assert "where label_smoothing is above 0" in different.text["curves"]
    assert "their training losses are not of one measure" not in alike.text["runs"]
    assert "their training losses are not of one measure" in different.text["runs"]


def test_the_best_checkpoint_is_said_to_be_chosen(run_folder: Path) -> None:
    last, best = gather.gather([run_folder, run_folder / "best.pt"])
    assert (last.label, best.label) == (run_folder.name, f"{run_folder.name}/best.pt")
    assert "the figures below are of it" not in " ".join(gather.looks_at_validation(last))
    assert "the figures below are of it" in " ".join(gather.looks_at_validation(best))
    errors = [row["val_top1_error"] for row in best.epochs]
    assert best.best is not None
    assert best.best["epoch"] == 1 + errors.index(min(errors)) == best.checkpoint.epoch
    # Resumed in another folder, from a run that had a better epoch: there is no best.pt.
    before = [{"loss": 1.0, "val_top1_error": -1.0}, *best.checkpoint.history]
    elsewhere = dataclasses.replace(best.checkpoint, history=before)
    assert dataclasses.replace(best, checkpoint=elsewhere).best is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "report.txt"], "should end in .html"),
        (["--out", "folder.html"], "that is a folder"),
        (["--out", "no/such/report.html"], "is not a folder"),
        (["--val-beton", "gone.beton"], "gone.beton does not exist"),
    ],
)
def test_wrong_names(
    run_folder: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    assert message in failure(capsys, "report", run_folder, *arguments)


# --------------------------------------------------------------------------- its parts


@given(
    labels=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    count=st.integers(1, 30),
)
def test_samples_are_spread_over_the_classes(labels: list[int], count: int) -> None:
    chosen = spread(np.array(labels), count)
    assert len(set(chosen)) == len(chosen) <= count
    assert len({labels[sample] for sample in chosen}) == min(count, len(set(labels)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3000), st.integers(1, 9))
def test_lines_are_smoothed_and_thinned(ys: list[float], window: int) -> None:
    points = [float(x) for x in range(len(ys))], ys
    thin = drawing.thinned(points)
    assert 1 <= len(thin[0]) == len(thin[1]) <= drawing.POINTS
    assert min(ys) - 1e-9 <= min(thin[1]) <= max(thin[1]) <= max(ys) + 1e-9
    smooth = drawing.smoothed(points, window)
    assert smooth[0] == points[0]
    middle = len(ys) // 2
    around = ys[max(middle - (window - 1) // 2, 0) : middle + window // 2 + 1]
    assert smooth[1][middle] == pytest.approx(sum(around) / len(around))


def test_an_svg_is_of_the_page_around_it() -> None:
    line = drawing.Line("a <b>", drawing.COLOURS[0], ([1.0, 2.0], [0.5, 0.25]))
    drop = drawing.Drop(1.5, 0.001, drawing.INK)
    svg = str(drawing.drawn("Loss", [line], drops=[drop]).svg)
    assert "currentColor" in svg
    assert drawing.INK not in svg
    assert ">0.001<" in svg
    assert "<b>" not in svg
    assert svg == str(drawing.drawn("Loss", [line], drops=[drop]).svg)
    assert svg.replace("http://www.w3.org/", "").count("http") == 0


@pytest.mark.parametrize("percent", [False, True])
@pytest.mark.parametrize("highest", [1.0, 0.6, 0.07, 0.0045, 0.0003, 0.00012, 0.0000007])
def test_figures_beside_an_axis_are_not_cut(highest: float, percent: bool) -> None:
    scale = 1 if percent else 100_000  # as images a second are, or a loss
    for top in (highest, highest * scale):
        line = drawing.Line("", drawing.COLOURS[0], ([1.0, 2.0], [top / 3, top]))
        svg = str(drawing.drawn("Share", [line], percent=percent).svg)
        labels = re.findall(r'text-anchor: end[^>]* x="([0-9.]+)"[^>]*>([^<]+)<', svg)
        assert len(labels) > 2
        for end, text in labels:
            assert float(end) > 11 * sum(WIDE.get(letter, 0.64) for letter in text), text


WIDE = {".": 0.32, "%": 0.95, "\N{MINUS SIGN}": 0.84}  # of DejaVu Sans, which is a wide one, in em


@pytest.mark.parametrize(("last", "most"), [(1, 3), (2, 3), (3, 4), (90, 12)])
def test_epochs_are_counted_in_whole_numbers(last: int, most: int) -> None:
    points = [step / 10 for step in range(1, 10 * last + 1)]
    svg = str(drawing.drawn("Loss", [drawing.Line("", drawing.COLOURS[0], (points, points))]).svg)
    labels = re.findall(r"text-anchor: middle[^>]*>([^<]+)<", svg)
    assert labels.pop() == "epochs"
    assert 0 < len(labels) <= most
    assert all(label.isdigit() for label in labels)


def test_few_classes_have_a_matrix_and_many_have_none(
    page: Page, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = [v["style"] for _, v in page.tags if (v.get("class") or "").startswith("number right")]
    assert len(shares) == 3  # the diagonal
    assert all(re.fullmatch(r"--share: \d+%", share or "") for share in shares)
    assert "columns, numbered as the rows" in page.text["confusions"]
    monkeypatch.setattr(sections, "MATRIX", 2)
    other = report(tmp_path / "page.html", run_folder)
    assert "columns, numbered as the rows" not in other.text["confusions"]


def test_the_thin_line_is_told_of_where_it_is(
    page: Page, run: Path, run_folder: Path, tmp_path: Path
) -> None:
    said = "The thin line is of every twenty steps"
    assert said not in page.text["curves"]  # of three steps an epoch one row is written
    steps = [row for row in metrics.read(run / metrics.FILE_NAME) if row["kind"] == "step"]
    with (run / metrics.FILE_NAME).open("a") as file:
        file.writelines(json.dumps(row | {"step": row["step"] - 1}) + "\n" for row in steps)
    assert said in report(tmp_path / "more.html", run).text["curves"]
    change_rows(run, lambda row: row if row["kind"] == "epoch" else None)
    gone = {"path": str(tmp_path / "gone.beton"), "card": {"samples": 18}}
    change_start(run, train=gone, val=gone)
    assert said not in report(tmp_path / "page.html", run).text["curves"]
    (whole,) = gather.gather([run_folder])
    assert whole.label == str(run_folder)
    whole = dataclasses.replace(whole, rows=whole.rows + whole.steps)
    assert curves.has_thin_line([whole])
    assert not curves.has_thin_line([whole, whole])
    assert not curves.has_thin_line([dataclasses.replace(whole, rows=whole.steps)])


def test_images_a_second_are_those_of_the_whole_time(run_folder: Path) -> None:
    (run,) = gather.gather([run_folder])
    rows = [
        row | {"images_per_s": rate, "seconds": seconds}
        for row, rate, seconds in zip(run.epochs, (10.0, 100.0), (100.0, 10.0), strict=True)
    ]
    (shown,) = headline.compared([dataclasses.replace(run, rows=rows)])
    assert (shown.rate, shown.hours) == ("18", "110 s")  # 2000 images


def run_of(recipe: Recipe, rows: list[dict[str, Any]]) -> gather.Run:
    from conftest import make_checkpoint

    return gather.Run("run", Path("run/last.pt"), make_checkpoint(recipe), rows, [])


def test_rates_fall_where_an_epoch_has_a_lower_one_than_the_last() -> None:
    rates = {3: 0.1, 4: 0.1, 5: 0.01, 6: 0.01, 7: 0.001}
    assert run_by_steps(rates).drops == [(4.0, 0.01), (6.0, 0.001)]
    whole = run_of(dataclasses.replace(load_recipe("demo"), width=0.07), epochs_of(rates))
    assert whole.drops == []  # one-cycle: it falls all the time


def epochs_of(rates: dict[int, float]) -> list[dict[str, Any]]:
    """Rows of epochs of 10 steps."""
    return [
        {"kind": "epoch", "epoch": epoch, "step": 10 * epoch, "learning_rate": rate, "loss": 1.0}
        for epoch, rate in rates.items()
    ]


def run_by_steps(rates: dict[int, float]) -> gather.Run:
    recipe = dataclasses.replace(load_recipe("demo"), width=0.07, schedule="steps")
    return run_of(recipe, epochs_of(rates))


def test_a_rate_of_steps_falls_at_an_instant() -> None:
    run = run_by_steps({1: 0.1, 2: 0.1, 3: 0.01})
    assert curves.rate(run) == ([0, 2, 2, 3], [0.1, 0.1, 0.01, 0.01])
    going_on = [{"kind": "step", "step": step, "learning_rate": 0.001} for step in (31, 35)]
    more = dataclasses.replace(run, rows=[*run.rows, *going_on])
    assert curves.rate(more) == ([0, 2, 2, 3, 3, 3.5], [0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    cycle = dataclasses.replace(load_recipe("demo"), width=0.07)
    assert curves.rate(run_of(cycle, more.rows)) == ([3.1, 3.5], [0.001, 0.001])


def test_falls_of_the_rate_of_several_runs_are_marked() -> None:
    one = run_by_steps({1: 0.1, 2: 0.01, 3: 0.001})
    longer = run_by_steps({1: 0.1, 2: 0.01, 3: 0.001, 4: 0.0001})
    other = run_by_steps({1: 0.2, 2: 0.02, 3: 0.02})
    cycle = run_of(dataclasses.replace(load_recipe("demo"), width=0.07), one.rows)
    marks = curves.rate_drops
    ink, (blue, orange, *_) = drawing.INK, drawing.COLOURS
    drop = drawing.Drop
    assert marks([one, one]) == marks([one]) == [drop(1, 0.01, ink), drop(2, 0.001, ink)]
    assert marks([one, longer])[2:] == [drop(3, None, orange)]
    assert marks([one, other]) == [drop(1, None, ink), drop(2, None, blue)]
    assert marks([one, one, cycle])[:2] == [drop(1, None, blue), drop(1, None, orange)]
    assert marks([cycle]) == []
    loss = curves.learning([one, other], 1)[0]
    assert str(loss.svg).count("stroke-dasharray: 1") == 2
    assert "falls to the value beside them." in curves.said_of_drops([one])
    assert "falls; coloured ones are of the run of that colour." in curves.said_of_drops(
        [one, other]
    )
    assert curves.said_of_drops([cycle]) == ""


@pytest.mark.parametrize("schedule", ["plateau", "reduce-on-plateau", "cosine"])
def test_what_a_schedule_looks_at_is_said(schedule: Any) -> None:
    rows = [{"kind": "epoch", "epoch": 1, "step": 2, "val_loss": 1.0, "val_top1_error": 0.5}]
    recipe = dataclasses.replace(load_recipe("demo"), width=0.07, schedule=schedule)
    said = " ".join(gather.looks_at_validation(run_of(recipe, rows)))
    assert (f"The schedule {schedule} lowers the learning rate" in said) == (schedule != "cosine")
    patient = dataclasses.replace(recipe, stop_patience=4)
    assert "ends after 4 epochs" in " ".join(gather.looks_at_validation(run_of(patient, rows)))
    own = dataclasses.replace(recipe, watch="loss")
    assert gather.looks_at_validation(run_of(own, rows)) == []


@pytest.mark.parametrize("name", recipe_names())
def test_every_value_of_a_recipe_has_its_source(name: str) -> None:
    text = recipe_text(name)
    found = recipe_values.comments(text)
    for field in dataclasses.fields(Recipe):
        assert found[field.name] or field.name in ("name", "about"), field.name
    assert "#" not in recipe_values.head(text)
    if name == "paper":
        assert found["mean"].endswith('"centre", the mean image\'s centre crop from every crop')


@pytest.mark.parametrize(
    "result",
    [result for results in published.RESULTS.values() for result in results],
    ids=lambda result: result.what,
)
def test_published_figures_are_those_of_the_recipes_heads(result: published.Published) -> None:
    head = " ".join(recipe_values.head(recipe_text(result.recipe)).split())
    for error in (result.top1, result.top5):
        if error is not None:
            assert f"{error:g} %" in head or f"{100 - error:.4g} %" in head
    if result.views:
        assert {5: "five", 10: "ten"}[result.views] in head


def test_the_head_tells_the_values_that_are_not_the_recipes() -> None:
    demo = load_recipe("demo")
    assert recipe_values.with_changes(run_of(demo, [])) == f"demo: {demo.about}"
    other = dataclasses.replace(demo, width=0.125, schedule="steps", layer_rates=())
    run = run_of(other, [])
    assert recipe_values.changed(run) == {"width": 0.125, "schedule": "steps"}
    assert recipe_values.with_changes(run) == "demo, with width = 0.125, schedule = steps"
    unknown = run_of(dataclasses.replace(other, name="mine"), [])
    assert recipe_values.changed(unknown) == dataclasses.asdict(unknown.checkpoint.recipe)
    assert recipe_values.with_changes(unknown) == f"mine: {demo.about}"


@pytest.mark.parametrize(
    ("data_set", "recipes"),
    [
        (
            "imagenet-1k",
            ["paper", "authors-2012", "steplr-100", "steplr-100", "plain-120", "plain-120"],
        ),
        ("caltech-256", ["caltech256-bn"] * 2),
        ("tiny-imagenet-200", ["tiny-imagenet"]),
        ("cifar-10", []),
    ],
)
def test_a_run_stands_beside_what_is_published_of_its_classes(
    data_set: str, recipes: list[str]
) -> None:
    """Whatever its recipe is; beside the paper where nothing is published of them."""
    wnids = [known.folder for known in manifest.load(data_set).classes]
    assert [each.recipe for each in published.of_classes(wnids)] == recipes
    assert published.of_classes(wnids[::2]) == ()
    run = run_of(dataclasses.replace(load_recipe("demo"), width=0.07), [])
    of_them = dataclasses.replace(run.checkpoint, data=with_classes(run, wnids))
    rows = headline.results(
        dataclasses.replace(run, checkpoint=of_them), Missing("gone"), Missing("gone")
    )
    shown = [row.what for row in rows if row.what.startswith("published: ")]
    assert len(shown) == max(len(recipes), 1)
    for what, recipe in zip(shown, recipes or ["paper"], strict=True):
        assert what.endswith(f" (recipe {recipe})")


def test_caltech_without_its_clutter_is_still_caltech() -> None:
    wnids = [known.folder for known in manifest.load("caltech-256").classes]
    assert len(published.of_classes(set(wnids) - {"257.clutter"})) == 2


def with_classes(run: gather.Run, wnids: list[str]) -> checkpoints.TrainedOn:
    return dataclasses.replace(run.checkpoint.data, wnids=wnids, names=wnids)


def test_kernels_are_those_of_conv1_by_tower() -> None:
    for name, towers in (("paper", 2), ("single-tower", 1)):
        recipe = dataclasses.replace(load_recipe("paper"), width=0.5, network=name)
        network = networks.build(recipe, 3)
        with torch.no_grad():
            network.conv1.weight[-1] = 0
            network.conv1.weight[-1, 0, 10, 10] = 2.0  # red, its last place
        sheets = kernels.by_tower(network)
        assert len(sheets) == towers
        last = sheets[-1][-11:, -11:] if towers == 1 else sheets[-1][12:, 7 * 12 : 7 * 12 + 11]
        assert last[10, 10].tolist() == [255, 128, 128, 255]
        assert last[0, 0].tolist() == [128, 128, 128, 255]
        assert not sheets[0][:, 11, 3].any()  # the page is seen, be it light or dark


def test_an_image_is_its_own_nearest_neighbour(run_folder: Path, betons: Path) -> None:
    loaded = checkpoints.load(run_folder)
    network = checkpoints.trained_network(loaded, run_folder)
    train = open_dataset(betons / "train.beton")
    centre = views_of(loaded.recipe, loaded.data, torch.device("cpu"), 1)
    with Screen(silent=True) as screen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BATCH", 4)  # 18 images: more than one, the last one smaller
        found = neighbours.nearest(network, read_pictures(train, [3, 17]), train, centre, screen)
    assert [row[0] for row in found] == [3, 17]
    features = neighbours.features(network, np.stack(read_pictures(train, range(18))), centre)
    order = torch.cdist(features[[3, 17]], features).argsort(dim=1)[:, : neighbours.NEAREST]
    assert found == order.tolist()


def test_a_start_is_added_when_a_run_goes_on(run: Path, betons: Path) -> None:
    beton = betons / "train.beton"
    options = ["--recipe", "demo", "--set", "width=0.07", "--set", "batch=8", "--set", "epochs=2"]
    assert call("run", "--beton", beton, "--out", run, *options, *ONE_THREAD) == 0
    assert len(provenance.read(run / provenance.FILE_NAME)) == 1  # it had ended: nothing began
    change_checkpoint(run, epoch=1, step=3)
    values = torch.load(run / "last.pt", weights_only=True)
    change_checkpoint(run, history=values["history"][:1])
    assert call("run", "--beton", beton, "--out", run, *options, *ONE_THREAD) == 0
    starts = provenance.read(run / provenance.FILE_NAME)
    assert [(start.epoch, start.step) for start in starts] == [(0, 0), (1, 3)]
    assert {start.steps_per_epoch for start in starts} == {3}
    assert starts[0].recipe_text == recipe_text("demo")


def test_a_damaged_run_json_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / provenance.FILE_NAME).write_text('{"format_version": 1, "starts": [{}]}')
    assert "run.json is damaged" in failure(capsys, "report", run)
    (run / provenance.FILE_NAME).write_text('{"format_version": 2}')
    assert "run.json has format version 2" in failure(capsys, "report", run)
