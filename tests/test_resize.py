"""`prep resize`: same bytes however it is run, killed at any moment, and nothing bad gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, fill_disk, jpeg_bytes, smooth_picture
from PIL import Image
from typer.testing import CliRunner

from prep import handover, images, plan, prepared, resize, resize_unit
from prep.claim import work_folder
from prep.cli import app
from prep.finish import SplitSummary
from prep.handover import read_card
from prep.images import Settings
from prep.plan import Options
from prep.program import UserError
from prep.sources import find_source, listing
from prep.sources.listing import Source

SMALL = Settings(side=32)


def tiny_source(root: Path, train: int = 3, val: int = 1, bad: int = 1) -> Path:
    """Two classes of small pictures in two splits; `bad` of the first class are no pictures."""
    generator = np.random.default_rng(4)
    for split, count in (("train", train), ("val", val)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                data = jpeg_bytes(smooth_picture(generator, 40 + number, 50))
                (root / split / name / f"{number}.jpg").write_bytes(data)
    for number in range(bad):
        (root / "train" / "cat" / f"bad{number}.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_source(tmp_path / "src")


def run(
    source: Path | Source, out: Path, settings: Settings = SMALL, jobs: int = 1, rejects: float = 1
) -> list[SplitSummary]:
    found = find_source(source) if isinstance(source, Path) else source
    options = Options(settings=settings, jobs=jobs, max_rejects=rejects)
    return resize.resize(found, out, options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the name of the run that may write."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "workers")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(manifest: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(manifest).to_pylist()
    return table


def rejects(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]


# --------------------------------------------------------------------------- what it makes


def test_every_picture_is_prepared_under_its_class_and_name(
    source: Path, prepared_set: Path
) -> None:
    for split in ("train", "val"):
        wanted = {str(p.relative_to(source / split)) for p in (source / split).rglob("*.JPEG")}
        assert set(contents(prepared_set / split)) == wanted


def test_a_prepared_picture_is_the_encoded_one_of_images(source: Path, prepared_set: Path) -> None:
    name = f"train/{CLASSES[1]}/{CLASSES[1]}_2.JPEG"
    pixels = images.prepare((source / name).read_bytes(), Settings()).pixels
    assert (prepared_set / name).read_bytes() == images.encode_jpeg(pixels, 95)


def test_the_manifest_describes_every_original_and_its_prepared_file(
    source: Path, prepared_set: Path
) -> None:
    manifest = rows(prepared_set / "train.parquet")
    assert [row["source"] for row in manifest] == sorted(row["source"] for row in manifest)
    assert len(manifest) == 18
    for row in manifest:
        data = (prepared_set / "train" / row["name"]).read_bytes()
        with Image.open(source / row["source"]) as original:
            assert (row["width"], row["height"]) == original.size
        assert row["class"] == CLASSES[row["label"]] == row["name"].split("/")[0]
        assert (row["bytes"], row["crc32"]) == (len(data), zlib.crc32(data))
        assert row["sha256"] == hashlib.sha256(data).digest()
        assert (row["kind"], row["status"], row["reason"]) == ("JPEG YCbCr", "ok", None)


def test_the_card_describes_the_split(source: Path, prepared_set: Path) -> None:
    card = read_card(prepared_set / "train.json")
    assert (card.split, card.samples, card.side, card.quality) == ("train", 18, 256, 95)
    assert [(c.wnid, c.name, c.samples) for c in card.classes] == [
        (CLASSES[0], "first", 6),
        (CLASSES[1], "second", 6),
        (CLASSES[2], "third", 6),
    ]
    assert (card.mode, card.sha256, card.filter) == ("jpg", None, "bilinear, antialiased")
    assert card.source == find_source(source).fingerprint("train")
    assert set(card.tools) == {"prep", "pillow", "simplejpeg"}
    manifest = rows(prepared_set / "train.parquet")
    digests = np.frombuffer(b"".join(row["sha256"] for row in manifest), np.uint8).reshape(-1, 32)
    labels = np.array([row["label"] for row in manifest])
    assert card.pixels_id == handover.pixels_id(labels, digests)


def test_nothing_else_is_left(prepared_set: Path) -> None:
    assert {path.name for path in prepared_set.iterdir()} == {
        *("train", "train.json", "train.parquet", "train.stats.npz"),
        *("val", "val.json", "val.parquet", "rejects.jsonl"),
    }


def test_size_and_quality_are_those_asked_for(tmp_path: Path, tiny: Path) -> None:
    run(tiny, tmp_path / "fine", Settings(side=48, quality=95))
    run(tiny, tmp_path / "coarse", Settings(side=48, quality=30))
    fine, coarse = (tmp_path / out / "train/cat/1.jpg" for out in ("fine", "coarse"))
    with Image.open(fine) as picture:
        assert picture.size == (48, 48)
    assert coarse.stat().st_size < fine.stat().st_size


# --------------------------------------------------------------------------- same bytes


def test_two_workers_give_the_bytes_of_one(
    source: Path, prepared_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also other units, so another order; a unit is a row group, so the manifests' rows agree."""
    monkeypatch.setattr(listing, "UNIT_SIZE", 4)
    run(source, tmp_path / "one", Settings(), jobs=1)
    run(source, tmp_path / "two", Settings(), jobs=2)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    expected = contents(prepared_set)
    for name in one:
        if not name.endswith(".parquet"):
            assert one[name] == expected[name]
    assert rows(tmp_path / "two/train.parquet") == rows(prepared_set / "train.parquet")


def test_the_order_of_completion_does_not_matter(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    run(tiny, tmp_path / "forwards")

    def backwards(function: Callable[[Any], Any], units: Any, *_: Any) -> Any:
        return map(function, reversed(list(units)))

    monkeypatch.setattr(resize, "run_units", backwards)
    run(tiny, tmp_path / "backwards")
    assert contents(tmp_path / "backwards") == contents(tmp_path / "forwards")


# --------------------------------------------------------------------------- killed, carries on


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing is cleaned up after it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int, source: Path, out: Path) -> None:
    with monkeypatch.context() as mortality:
        mortal = Mortal(mortality, steps)
        with contextlib.suppress(KilledError):
            run(source, out)
    assert mortal.dead


class Mortal:
    """Lets the process take `steps` steps on the disk, and kills it in the middle of the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        self.steps, self.dead = steps, False
        monkeypatch.setattr(os, "fsync", self._step(lambda _: None))
        for name in ("replace", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._step(getattr(os, name)))
        for name in ("write_bytes", "write_text"):
            monkeypatch.setattr(Path, name, self._write(getattr(Path, name)))
        write_picture = self._write(resize_unit._write_file)
        monkeypatch.setattr(resize_unit, "_write_file", write_picture)

    def _take_step(self) -> None:
        if self.steps == 0:
            self.dead = True
            raise KilledError
        self.steps -= 1

    def _step(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if self.dead:
                return None
            self._take_step()
            return real(*arguments, **options)

        return step

    def _write(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(path: Path, data: Any, **options: Any) -> Any:
            try:
                self._take_step()
            except KilledError:
                real(path, data[: len(data) // 2], **options)
                raise
            return real(path, data, **options)

        return write


def test_a_picture_is_written_whole_in_however_many_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    resize_unit._write_file(str(tmp_path / "a"), bytes(range(100)))
    assert (tmp_path / "a").read_bytes() == bytes(range(100))


def test_a_picture_that_is_there_already_is_whole_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "a", bytes(range(100))
    path.write_bytes(data)
    real, seen = os.write, []

    def write(descriptor: int, rest: bytes) -> int:
        seen.append(path.read_bytes())
        return real(descriptor, rest[:7])

    monkeypatch.setattr(os, "write", write)
    resize_unit._write_file(str(path), data)
    assert len(seen) == 15
    assert set(seen) == {data}
    path.write_bytes(data + b"more")
    resize_unit._write_file(str(path), data)
    assert path.read_bytes() == data


def test_killed_at_any_step_the_same_command_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_source(tmp_path / "src", train=2)
    monkeypatch.setattr(listing, "UNIT_SIZE", 3)
    monkeypatch.setattr(resize_unit, "_sync", lambda *_: None)  # power cuts are not tried here
    monkeypatch.setattr(os, "fsync", lambda _: None)
    found = find_source(tiny)
    run(found, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    steps = 0
    while True:
        out = tmp_path / f"killed{steps}"
        with monkeypatch.context() as mortality:
            mortal = Mortal(mortality, steps)
            try:
                run(found, out)
            except KilledError:
                pass
            else:
                break
        assert mortal.dead
        for card in out.glob("*.json"):  # beside a card, the split is whole
            split = card.with_suffix("")
            assert contents(split) == contents(tmp_path / "whole" / split.name)
        run(found, out)
        assert contents(out) == expected, steps
        shutil.rmtree(out)
        steps += 1
    assert steps > 40


def test_a_unit_s_pictures_are_durable_before_its_journal_row(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    synced: list[tuple[int, int]] = []
    real = resize_unit._sync

    def sync(descriptor: int, folder: Path) -> None:
        journal = (tmp_path / "out" / ".prep" / "train").glob("0*.parquet")
        synced.append((len(list(folder.rglob("*.jpg"))), len(list(journal))))
        real(descriptor, folder)

    monkeypatch.setattr(resize_unit, "_sync", sync)
    found = find_source(tiny)
    run(dataclasses.replace(found, splits={"train": found.splits["train"]}), tmp_path / "out")
    assert synced == [(2, 0), (3, 1), (5, 2), (6, 3)]  # pictures and rows so far; one is bad


def test_a_disk_that_fails_while_pictures_are_made_leaves_no_rows(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize_unit, "SYNC_EVERY", 2)
    asked: list[int] = []

    def sync(descriptor: int, _: Path) -> None:
        asked.append(descriptor)
        if len(asked) == 1:
            raise UserError("cannot write")

    monkeypatch.setattr(resize_unit, "_sync", sync)
    found = find_source(tiny)
    with pytest.raises(UserError, match="cannot write"):
        run(dataclasses.replace(found, splits={"train": found.splits["train"]}), tmp_path / "out")
    assert not list((tmp_path / "out" / ".prep" / "train").glob("0*.parquet"))


def test_one_descriptor_hears_of_every_failure_of_the_disk_while_a_unit_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells a descriptor of what fails after it was opened."""
    asked: list[int] = []
    monkeypatch.setattr(resize_unit, "_sync", lambda descriptor, _: asked.append(descriptor))
    disk = resize_unit.Disk(tmp_path)
    for _ in range(3):
        disk.begin()
    disk.wait()
    assert len(asked) >= 2
    assert len(set(asked)) == 1
    assert os.fstat(asked[0]).st_ino == tmp_path.stat().st_ino
    disk.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(asked[0])


def test_finished_units_are_not_done_again(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    found = find_source(tiny)
    done: list[int] = []
    real = resize.resize_unit

    def until_the_third(unit: resize.Unit) -> tuple[int, int]:
        if len(done) == 2:
            raise KilledError
        done.append(unit.run.number)
        return real(unit)

    monkeypatch.setattr(resize, "resize_unit", until_the_third)
    with pytest.raises(KilledError):
        run(found, tmp_path / "out")
    partial = tmp_path / "out" / "train.partial"
    before = {p.relative_to(partial): p.stat() for p in partial.rglob("*.jpg")}
    assert len(before) == 3
    assert not (tmp_path / "out" / "train").exists()

    monkeypatch.setattr(resize, "resize_unit", real)
    run(found, tmp_path / "out")
    for name, stat in before.items():
        after = (tmp_path / "out" / "train" / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_real_kill_is_carried_on_from_at_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    program = (
        "import pathlib, sys\n"
        "from prep import resize\n"
        "from prep.plan import Options\n"
        "from prep.sources import find_source, listing\n"
        "listing.UNIT_SIZE = 2\n"
        "real = resize.run_units\n"
        "def slowly(function, units, *rest):\n"
        "    for result in real(function, units, *rest):\n"
        "        print('unit', flush=True)\n"
        "        yield result\n"
        "resize.run_units = slowly\n"
        "found = find_source(pathlib.Path(sys.argv[1]))\n"
        "resize.resize(found, pathlib.Path(sys.argv[2]), Options(jobs=int(sys.argv[3])))\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", program, str(source), str(out), str(jobs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == b"unit\n"
        process.kill()
    assert process.returncode == -9
    assert not (out / "val.json").exists()
    finished = len(list((out / ".prep").glob("*/0*.parquet")))
    assert finished >= 3
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    run(source, out, Settings())
    run(source, tmp_path / "whole", Settings())
    assert contents(out) == contents(tmp_path / "whole")


def test_a_journal_whose_pictures_were_removed_is_begun_anew(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    kill_after(monkeypatch, 30, tiny, tmp_path / "out")
    assert list((tmp_path / "out" / ".prep" / "train").glob("*.parquet"))
    shutil.rmtree(tmp_path / "out" / "train.partial")
    run(tiny, tmp_path / "out")
    run(tiny, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_run_is_not_done_again(tmp_path: Path, tiny: Path) -> None:
    first = run(tiny, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "train").rglob("*")}
    second = run(tiny, tmp_path / "out")
    assert [s.already_done for s in first] == [False, False]
    assert [s.already_done for s in second] == [True, True]
    assert [(s.samples, s.rejected) for s in first] == [(s.samples, s.rejected) for s in second]
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "train").rglob("*")}


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (Settings(side=33), "--size 32, this command says 33"),
        (Settings(side=32, quality=94), "quality 95, this command says 94"),
        (Settings(side=32, backend="pillow"), "backend turbo, this command says pillow"),
        (Settings(side=32, fit="squash"), "fit crop, this command says squash"),
        (Settings(side=32, exif="apply"), "exif ignore, this command says apply"),
    ],
)
def test_another_option_is_refused_by_name(
    tmp_path: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
    changed: Settings,
    named: str,
) -> None:
    if finished:
        run(tiny, tmp_path / "out")
    else:
        kill_after(monkeypatch, 12, tiny, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=named):
        run(tiny, tmp_path / "out", changed)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (Settings(side=32, max_pixels=99), "max-pixels 40000000, this command says 99"),
        (Settings(side=32, on_truncated="accept"), "on-truncated reject, this command says accept"),
    ],
)
def test_what_no_card_says_is_refused_by_name_too(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, changed: Settings, named: str
) -> None:
    kill_after(monkeypatch, 12, tiny, tmp_path / "out")
    with pytest.raises(UserError, match=named):
        run(tiny, tmp_path / "out", changed)
    run(tiny, tmp_path / "out")
    with pytest.raises(UserError, match=named):
        run(tiny, tmp_path / "out", changed)


def test_a_finished_split_of_an_older_tool_is_done(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny, tmp_path / "out")
    monkeypatch.setattr(plan, "tool_versions", lambda _: {"pillow": "1"})
    assert all(summary.already_done for summary in run(tiny, tmp_path / "out"))


def test_a_finished_split_of_too_many_rejects_is_not_called_good(
    tmp_path: Path, tiny: Path
) -> None:
    run(tiny, tmp_path / "out", rejects=1.0)
    with pytest.raises(UserError, match=r"1 of \d+ pictures of train were rejected, more than"):
        run(tiny, tmp_path / "out", rejects=0.0)


def test_a_manifest_that_is_none_is_named(tmp_path: Path, tiny: Path) -> None:
    run(tiny, tmp_path / "out")
    (tmp_path / "out" / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"train.parquet is damaged .*; remove what is call"):
        run(tiny, tmp_path / "out")


def test_the_options_of_the_command_are_in_the_card(tmp_path: Path, tiny: Path) -> None:
    options = ["--size", "32", "--backend", "opencv-2012", "--fit", "squash", "--exif", "apply"]
    options += ["--on-truncated", "accept", "--max-rejects", "1", "--jobs", "1"]
    ended = CliRunner().invoke(app, ["resize", str(tiny), str(tmp_path / "out"), *options])
    assert ended.exit_code == 0, ended.output
    card = read_card(tmp_path / "out" / "train.json")
    assert (card.backend, card.fit, card.exif) == ("opencv-2012", "squash", "apply")
    assert card.filter == "area to shrink, cubic to enlarge"
    assert set(card.tools) == {"prep", "pillow", "simplejpeg", "opencv"}


def test_a_killed_run_of_other_versions_or_units_is_not_carried_on_from(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after(monkeypatch, 12, tiny, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(plan, "tool_versions", lambda _: {"pillow": "1"})
        with pytest.raises(UserError, match=r"with tools .*, this command says pillow 1;"):
            run(tiny, tmp_path / "out")
    monkeypatch.setattr(listing, "UNIT_SIZE", 5)
    with pytest.raises(UserError, match="unit-size 512, this command says 5"):
        run(tiny, tmp_path / "out")


def test_other_pictures_are_refused(tmp_path: Path, tiny: Path) -> None:
    run(tiny, tmp_path / "out")
    (tiny / "train/cat/0.jpg").rename(tiny / "train/cat/00.jpg")
    with pytest.raises(UserError, match="was prepared from other pictures"):
        run(tiny, tmp_path / "out")


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        work_folder(tiny, out),
        pytest.raises(UserError, match=r"out is being written by another run"),
    ):
        run(tiny, out)
    run(tiny, out)


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path, tiny: Path) -> None:
    mine = tmp_path / "out" / "train" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(UserError, match=r"out/train exists and was not made by this command"):
        run(tiny, tmp_path / "out")
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("lost", ["train", "train.parquet"])
def test_a_card_whose_split_is_gone_is_not_called_prepared(
    tmp_path: Path, tiny: Path, lost: str
) -> None:
    out = tmp_path / "out"
    run(tiny, out)
    path = out / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=rf"train\.json is there, but .*{lost} is not; remove"):
        run(tiny, out)


def test_a_file_in_the_place_of_out_is_refused(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"cannot create .*out"):
        run(tiny, tmp_path / "out")


# --------------------------------------------------------------------------- rejects


def test_rejects_are_recorded_with_path_and_reason(tmp_path: Path) -> None:
    src = tiny_source(tmp_path / "src", bad=2)
    (src / "val/dog/empty.gif").touch()
    summaries = run(src, tmp_path / "out")
    assert [(s.split, s.samples, s.rejected) for s in summaries] == [("train", 6, 2), ("val", 2, 1)]
    unknown = "not a picture in a known format"
    assert rejects(tmp_path / "out") == [
        {"split": "train", "path": "train/cat/bad0.png", "reason": unknown},
        {"split": "train", "path": "train/cat/bad1.png", "reason": unknown},
        {"split": "val", "path": "val/dog/empty.gif", "reason": "the file is empty"},
    ]
    bad = [row for row in rows(tmp_path / "out/train.parquet") if row["status"] == "rejected"]
    assert [(row["source"], row["reason"], row["sha256"]) for row in bad] == [
        ("train/cat/bad0.png", unknown, None),
        ("train/cat/bad1.png", unknown, None),
    ]
    assert not list((tmp_path / "out").rglob("bad*"))
    assert read_card(tmp_path / "out/train.json").samples == 6


def test_more_rejects_than_allowed_fail_and_a_larger_limit_carries_on(
    tmp_path: Path, tiny: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        UserError,
        match=r"1 of 7 pictures of train were rejected.*0\.1 allows.*cat/bad0\.png: not a",
    ):
        run(tiny, out, rejects=0.1)
    assert not (out / "train").exists()
    assert not (out / "train.json").exists()
    before = {p.name: p.stat().st_mtime_ns for p in (out / "train.partial").rglob("*.jpg")}
    summaries = run(tiny, out, rejects=1 / 7)
    assert [s.rejected for s in summaries] == [1, 0]
    assert {p.name: p.stat().st_mtime_ns for p in (out / "train").rglob("*.jpg")} == before


def test_a_split_of_rejects_alone_is_an_empty_set(tmp_path: Path) -> None:
    src = tiny_source(tmp_path / "src", train=0, val=0, bad=2)
    (src / "train/dog/1.jpg").write_bytes(b"no picture")
    shutil.rmtree(src / "val")
    assert [(s.samples, s.rejected) for s in run(src, tmp_path / "out")] == [(0, 3)]
    assert read_card(tmp_path / "out/train.json").samples == 0


def test_a_picture_that_vanishes_is_rejected(tmp_path: Path, tiny: Path) -> None:
    found = find_source(tiny)
    (tiny / "train/dog/1.jpg").unlink()
    run(found, tmp_path / "out")
    assert {
        "split": "train",
        "path": "train/dog/1.jpg",
        "reason": "cannot be read: No such file or directory",
    } in rejects(tmp_path / "out")


def test_a_dangling_link_is_rejected(tmp_path: Path, tiny: Path) -> None:
    (tiny / "train/dog/far.jpg").symlink_to("nowhere.jpg")
    run(tiny, tmp_path / "out")
    assert ("train/dog/far.jpg", "cannot be read: No such file or directory") in [
        (entry["path"], entry["reason"]) for entry in rejects(tmp_path / "out")
    ]


def test_a_file_of_too_many_bytes_is_rejected_unread(tmp_path: Path, tiny: Path) -> None:
    with (tiny / "train/dog/huge.tif").open("wb") as out:
        out.truncate(5 << 40)  # five sparse terabytes
    run(tiny, tmp_path / "out")
    assert "its 5497558138880 bytes are more than 268435456" in [
        entry["reason"] for entry in rejects(tmp_path / "out")
    ]


def test_max_pixels_rejects_larger_pictures(tmp_path: Path, tiny: Path) -> None:
    summaries = run(tiny, tmp_path / "out", Settings(side=32, max_pixels=41 * 50))
    assert [s.samples for s in summaries] == [4, 2]


# --------------------------------------------------------------------------- names


def place(src: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        picture = smooth_picture(np.random.default_rng(number), 40, 40)
        picture.save(src / name, "JPEG" if name.lower().endswith(("jpg", "jpeg")) else "PNG")
    return src


def names_in(out: Path) -> list[str]:
    return [row["name"] for row in rows(out / "train.parquet")]


def test_names_that_meet_get_a_number_and_each_keeps_its_picture(tmp_path: Path) -> None:
    src = place(
        *(tmp_path / "src", "c/1.jpg", "c/sub/1.jpg", "c/tub/1.jpg"),
        *("c/a.png", "c/a.png.jpg", "c/1~2.jpg", "d/1.jpg"),
    )
    run(src, tmp_path / "out", rejects=0)
    names = names_in(tmp_path / "out")
    assert len(set(names)) == len(names) == 7
    assert set(names) == set(contents(tmp_path / "out/train"))
    for row in rows(tmp_path / "out/train.parquet"):
        pixels = images.prepare((src / row["source"]).read_bytes(), SMALL).pixels
        data = (tmp_path / "out/train" / row["name"]).read_bytes()
        assert data == images.encode_jpeg(pixels, 95)


def test_other_formats_get_a_jpeg_s_ending_and_jpegs_keep_theirs(tmp_path: Path) -> None:
    src = place(tmp_path / "src", "c/a.png", "c/b.JPEG", "c/d.e.jpg", "c/f.TIF")
    run(src, tmp_path / "out", rejects=0)
    assert names_in(tmp_path / "out") == ["c/a.png.jpg", "c/b.JPEG", "c/d.e.jpg", "c/f.TIF.jpg"]


@pytest.mark.parametrize(
    "name",
    ["a" * 251 + ".png", "é" * 125 + ".png", "b" * 251 + ".jpg", "sub/" + "a" * 250 + ".jpeg"],
)
def test_the_longest_names_fit(tmp_path: Path, name: str) -> None:
    src = place(tmp_path / "src", f"c/{name}", f"c/x/{name}")
    run(src, tmp_path / "out", rejects=0)
    assert len(contents(tmp_path / "out/train")) == 2


def test_names_of_other_bytes_and_odd_letters_are_prepared(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"c/caf\xe9.jpg"), os.fsdecode(b"c/caf\xe8.jpg"), "c/a\nb \u2028[x].jpg"]
    src = place(tmp_path / "src", *odd, os.fsdecode(b"c/\xff.png"))
    run(src, tmp_path / "out", rejects=0)
    assert set(names_in(tmp_path / "out")) == set(contents(tmp_path / "out/train"))
    assert len(names_in(tmp_path / "out")) == 4
    sources = [row["source"] for row in rows(tmp_path / "out/train.parquet")]
    assert "c/caf\\xe9.jpg" in sources


# --------------------------------------------------------------------------- disks


def test_a_full_disk_is_named_and_the_same_command_finishes_later(
    tmp_path: Path, small_disk: Path, tiny: Path
) -> None:
    found = find_source(tiny)
    run(found, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    failures = 0
    for blocks in range(0, 60):
        out = small_disk / "out"
        filler = fill_disk(small_disk, blocks)
        failure = None
        try:
            run(found, out)
        except (UserError, OSError) as error:
            failure = str(error)
        if failure is not None:
            assert "No space left on device" in failure
            assert str(small_disk) in failure
            failures += 1
            for card in out.glob("*.json"):
                split = card.with_suffix("")
                assert contents(split) == contents(tmp_path / "whole" / split.name)
            filler.unlink()
            run(found, out)
        assert contents(out) == expected
        shutil.rmtree(out)
    assert 10 < failures < 60


def test_a_refused_run_leaves_nothing(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "out" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by this command"):
        run(tiny, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]


def test_a_read_only_place_is_named(small_disk: Path, tiny: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"cannot create .*disk/out: Read-only file system"):
        run(tiny, small_disk / "out")
    with pytest.raises(OSError, match=r"Read-only file system: .*disk/\.prep"):
        run(tiny, small_disk)


def test_a_destination_inside_the_source_is_refused(tmp_path: Path, tiny: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    for out in (copy, copy / "out"):
        with pytest.raises(UserError, match="give a folder elsewhere"):
            run(find_source(copy), out)
    assert not (copy / "out").exists()
    assert not (copy / ".prep").exists()


def test_too_many_rejects_are_listed_for_every_split(tmp_path: Path, tiny: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    for split in ("train", "val"):
        folder = next(path for path in sorted((copy / split).iterdir()) if path.is_dir())
        (folder / "zz_bad.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"rejects\.jsonl: run the same command with a larger"):
        run(copy, out, Settings(), rejects=0.0)
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    named = {(line["split"], Path(line["path"]).name) for line in lines}
    assert named >= {("train", "zz_bad.jpg"), ("val", "zz_bad.jpg")}
    assert not (out / "train").exists()
    done = run(copy, out, Settings(), rejects=1.0)
    assert not any(summary.already_done for summary in done)


def test_another_split_s_unfinished_work_is_kept(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    kill_after(monkeypatch, 30, tiny, tmp_path / "out")
    journal = tmp_path / "out" / ".prep" / "train"
    before = sorted(path.name for path in journal.iterdir())
    assert any(name.endswith(".parquet") for name in before)
    found = find_source(tiny)
    run(dataclasses.replace(found, splits={"val": found.splits["val"]}), tmp_path / "out")
    assert sorted(path.name for path in journal.iterdir()) == before
    run(found, tmp_path / "out")
    assert not (tmp_path / "out" / ".prep").exists()
    shutil.rmtree(tmp_path / "out")

    (tmp_path / "out" / "train.partial" / "horse").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train.partial was left by a run of which nothing else"):
        run(found, tmp_path / "out")
    assert (tmp_path / "out" / "train.partial" / "horse").is_dir()


def test_a_journal_that_lost_a_unit_s_rows_is_told(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 2)
    out, found = tmp_path / "out", find_source(tiny)

    def fail(*_: object) -> None:
        raise OSError("stop")

    with monkeypatch.context() as patched:
        patched.setattr(prepared, "write_manifest", fail)
        with pytest.raises(OSError, match="stop"):
            run(found, out)
    assert (out / "train").exists()
    (out / ".prep" / "train" / "000001.parquet").unlink()
    with pytest.raises(UserError, match=r"000001\.parquet, which tells .* is not; remove .*train"):
        run(found, out)
