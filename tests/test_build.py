"""`prep build`: the files of the three-step way from one pass, killed at any moment, or refused."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import fill_disk, jpeg_bytes, small_jpeg, smooth_picture, tar_bytes
from test_cifar import write_cifar
from test_ilsvrc import write_archives
from test_parquet import some_rows, write_shard

from prep import build, build_split, companions, handover, resize, stats, write
from prep.claim import work_folder
from prep.files import whole_file
from prep.finish import SplitSummary
from prep.images import Settings
from prep.plan import Options
from prep.program import UserError
from prep.sources import find_source, listing
from prep.stream import SampleStream
from prep.verify import verify

SMALL = Settings(side=32)
PATIENCE = 60  # seconds for what takes five; longer is a hang


def class_folders(root: Path) -> Path:
    """Three classes, names that sort otherwise once they are prepared, and what is no picture."""
    generator = np.random.default_rng(4)
    names = ("b.jpg", "B.jpg", "a.png", "a.jpg", "a.JPG", "a/1.jpg", "a 1.jpg", "é.jpg")
    for split in ("train", "val"):
        for wnid in ("n1", "n2", "n3"):
            for name in names:
                path = root / split / wnid / name
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = smooth_picture(generator, 50, 40)
                picture.save(path, "PNG") if name == "a.png" else path.write_bytes(
                    jpeg_bytes(picture)
                )
    (root / "train" / "n2" / "bad.jpg").write_bytes(b"no picture")
    (root / "test").mkdir()
    (root / "test" / "x.jpg").write_bytes(small_jpeg(3))
    (root / "words.txt").write_text("n1\tfirst\n")
    return root


def webdataset(root: Path) -> Path:
    """Samples of three classes mixed over two shards."""
    root.mkdir()
    for shard in range(2):
        files = {}
        for n in range(6):
            files[f"{shard}{n}.jpg"] = small_jpeg(10 * shard + n)
            files[f"{shard}{n}.cls"] = str(n % 3).encode()
        (root / f"train-{shard}.tar").write_bytes(tar_bytes(files))
    return root


def archives(root: Path) -> Path:
    root.mkdir()
    return write_archives(root)


def cifar(root: Path) -> Path:
    write_cifar(root)
    return root


SOURCES: dict[str, Callable[[Path], Path]] = {
    "class folders": class_folders,
    "WebDataset": webdataset,
    "archives": archives,
    "CIFAR-10": cifar,
}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "src")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 5)
    monkeypatch.setattr("prep.pictures.UNIT_SIZE", 5)
    monkeypatch.setattr(build_split, "COST", float("inf"))  # a checkpoint after each unit


def run(
    root: Path, dest: Path, jobs: int = 1, rejects: float = 1.0, settings: Settings = SMALL
) -> list[SplitSummary]:
    return build.build(
        find_source(root), dest, Options(settings=settings, jobs=jobs, max_rejects=rejects)
    )


def stop_at_the_end(root: Path, dest: Path) -> None:
    """Have all samples in the streams, and no beton yet."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "check_splits", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(root, dest)


def three_steps(root: Path, folder: Path) -> Path:
    source = find_source(root)
    resize.resize(source, folder / "out", Options(settings=SMALL, jobs=1, max_rejects=1.0))
    if "train" in source.splits:
        stats.measure(folder / "out" / "train", jobs=1)
    for split in source.splits:
        (folder / "betons").mkdir(exist_ok=True)
        write.write_beton(folder / "out" / split, folder / "betons" / f"{split}.beton", "jpg", 1)
    shutil.copy(folder / "out" / "rejects.jsonl", folder / "betons")
    return folder / "betons"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def without_manifests(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if not name.endswith(".parquet")}


# --------------------------------------------------------------------------- what it makes


@pytest.mark.parametrize("kind", SOURCES)
def test_its_files_are_those_of_the_three_steps(tmp_path: Path, kind: str) -> None:
    root = SOURCES[kind](tmp_path / "src")
    expected = without_manifests(three_steps(root, tmp_path))
    run(root, tmp_path / "one")
    assert without_manifests(tmp_path / "one") == expected
    run(root, tmp_path / "two", jobs=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    for beton in (tmp_path / "one").glob("*.beton"):
        verify(beton, jobs=1)


def test_its_manifest_is_that_of_the_prepared_set(src: Path, tmp_path: Path) -> None:
    three_steps(src, tmp_path)
    run(src, tmp_path / "one")
    for split in ("train", "val", "test"):
        ours, theirs = (
            pq.read_table(folder / f"{split}.parquet").to_pylist()
            for folder in (tmp_path / "one", tmp_path / "out")
        )
        assert ours == theirs


def test_it_says_how_many_and_what_was_rejected(src: Path, tmp_path: Path) -> None:
    train, val, test = run(src, tmp_path / "one")
    assert (train.split, train.samples, train.rejected, train.done_now) == ("train", 24, 1, 25)
    assert (val.samples, test.samples, test.rejected) == (24, 1, 0)
    again = run(src, tmp_path / "one")
    assert all(summary.already_done for summary in again)
    assert [(s.samples, s.rejected, s.done_now) for s in again] == [
        (24, 1, 0),
        (24, 0, 0),
        (1, 0, 0),
    ]


def test_a_wrong_guess_of_the_number_of_samples_changes_nothing(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(src, tmp_path / "right")
    monkeypatch.setattr(build_split, "samples_guess", lambda *_: 1_000_000)
    run(src, tmp_path / "wrong")
    assert contents(tmp_path / "wrong") == contents(tmp_path / "right")


# --------------------------------------------------------------------------- going on


class KilledError(Exception):
    pass


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_noted_is_not_done_again(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    run(src, tmp_path / "whole")
    with monkeypatch.context() as patched:
        real, done = SampleStream.append, []

        def die_at_the_fourth(self: object, *given: object) -> None:
            done.append(given)
            if len(done) == 4:
                raise KilledError
            real(self, *given)  # type: ignore[arg-type]

        patched.setattr(SampleStream, "append", die_at_the_fourth)
        with pytest.raises(KilledError):
            run(src, tmp_path / "out", jobs=jobs)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".prep"]
    train, val, _ = run(src, tmp_path / "out", jobs=jobs)
    assert (train.done_now, val.done_now) == (25 - 15, 24)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("where", ["claim_all", "write_split"])
def test_an_error_at_the_end_costs_no_pictures(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    run(src, tmp_path / "whole")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(build, where, fail)
        with pytest.raises(OSError, match="full"):
            run(src, tmp_path / "out")
    assert not (tmp_path / "out" / "train.beton").exists()
    assert [summary.done_now for summary in run(src, tmp_path / "out")] == [0, 0, 0]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["beton", "sums.checkpoint", "000000.parquet"])
@pytest.mark.parametrize("damaged", [False, True])
def test_what_was_lost_of_a_killed_run_is_done_again(
    src: Path, tmp_path: Path, lost: str, damaged: bool
) -> None:
    run(src, tmp_path / "whole")
    stop_at_the_end(src, tmp_path / "out")
    path = tmp_path / "out" / ".prep" / "train" / lost
    if damaged:
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.unlink()
    assert [summary.done_now for summary in run(src, tmp_path / "out")] == [25, 0, 0]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_stream_that_has_changed_is_named_and_not_taken(src: Path, tmp_path: Path) -> None:
    stop_at_the_end(src, tmp_path)
    path = tmp_path / ".prep" / "train" / "beton"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{path} has changed .* remove {path.parent} and what is"):
        run(src, tmp_path)
    shutil.rmtree(path.parent)
    for left in tmp_path.glob("train.*"):
        left.unlink()
    run(src, tmp_path)


SLOWLY = """
import time
from prep import build_split, cli, pictures
from prep.sources import listing

real = build_split.build_unit

def slowly(unit):
    from prep.build_unit import build_unit
    time.sleep(0.2)
    return build_unit(unit)

build_split.build_unit = slowly
listing.UNIT_SIZE = pictures.UNIT_SIZE = 5
build_split.COST = float("inf")  # a checkpoint after each unit
cli.main()
"""


def start(src: Path, out: Path, jobs: int = 1) -> subprocess.Popen[str]:
    options = ["--size", "32", "--jobs", str(jobs), "--max-rejects", "1"]
    return subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "build", str(src), str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def halfway(
    src: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """A run into tmp_path/out that has noted some units of train, and has others before it."""
    with start(src, tmp_path / "out", getattr(request, "param", 1)) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "out/.prep/train/sums.checkpoint").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("attempt", [1, 2])
def test_killed_it_goes_on(
    src: Path, tmp_path: Path, halfway: subprocess.Popen[str], attempt: int
) -> None:
    time.sleep(random.Random(attempt).uniform(0, 0.5))
    assert halfway.poll() is None
    halfway.kill()
    halfway.communicate(timeout=PATIENCE)
    assert not list((tmp_path / "out").glob("*.beton"))
    with start(src, tmp_path / "out") as process:
        said, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    found = re.search(r"^(\d+) pictures in ", said, re.MULTILINE)
    assert found is not None
    assert 0 < int(found[1]) < 50
    run(src, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("halfway", [2], indirect=True)
def test_a_killed_worker_ends_the_run(tmp_path: Path, halfway: subprocess.Popen[str]) -> None:
    children = Path(f"/proc/{halfway.pid}/task/{halfway.pid}/children").read_text().split()
    worker = next(
        int(child)
        for child in children
        if b"loky" in (line := Path(f"/proc/{child}/cmdline").read_bytes())
        and b"tracker" not in line
    )
    os.kill(worker, signal.SIGKILL)
    _, err = halfway.communicate(timeout=PATIENCE)
    assert halfway.returncode == 1
    assert re.fullmatch(r"prep: one of 2 worker processes died .*; run the same .*\n", err)
    assert not list((tmp_path / "out").glob("*.beton"))


# --------------------------------------------------------------------------- what is refused


def test_parquet_shards_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_shard(tmp_path / "src" / "train-00000-of-00001.parquet", [*some_rows(3)])
    with pytest.raises(UserError, match=r"from start to end only.*use prep resize, prep stats"):
        run(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_option_is_named(src: Path, tmp_path: Path) -> None:
    run(src, tmp_path / "out")
    with pytest.raises(UserError, match=r"train.beton was prepared with --quality 95, this .* 90"):
        run(src, tmp_path / "out", settings=Settings(side=32, quality=90))
    (src / "val" / "n1" / "a.png").unlink()
    with pytest.raises(UserError, match=r"val.beton was prepared from other pictures"):
        run(src, tmp_path / "out")


def test_a_changed_option_is_named_halfway(src: Path, tmp_path: Path) -> None:
    stop_at_the_end(src, tmp_path / "out")
    with pytest.raises(
        UserError, match=r"\.prep/train was prepared with --quality 95, this command says 90"
    ):
        run(src, tmp_path / "out", settings=Settings(side=32, quality=90))


def test_a_folder_of_something_else_is_refused_and_kept(src: Path, tmp_path: Path) -> None:
    resize.resize(find_source(src), tmp_path / "out", Options(settings=SMALL, max_rejects=1.0))
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"train.json is there and was not made by this command"):
        run(src, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "val.beton").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"val.beton is there and was not made by this command"):
        run(src, tmp_path / "mine")
    assert (tmp_path / "mine" / "val.beton").read_bytes() == b"precious"


def test_a_missing_companion_of_a_finished_beton_is_told(src: Path, tmp_path: Path) -> None:
    run(src, tmp_path / "out")
    handover.records_path(tmp_path / "out" / "val.beton").unlink()
    with pytest.raises(
        UserError,
        match=r"or .*val\.records\.npz is gone; give another folder than .*out, or remove",
    ):
        run(src, tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "is damaged"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"(32, 32", b"(22, 32")),
            "is not",
        ),
    ],
)
def test_missing_or_damaged_statistics_of_a_finished_beton_are_told_and_measured_again(
    src: Path, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    run(src, tmp_path / "out")
    before, path = contents(tmp_path / "out"), tmp_path / "out" / "train.stats.npz"
    damage(path)
    beton = tmp_path / "out" / "train.beton"
    with pytest.raises(UserError, match=rf"{path} {said}.*; .*run `prep stats {beton}` again"):
        run(src, tmp_path / "out")
    stats.measure(beton, jobs=1)
    assert all(summary.already_done for summary in run(src, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["train.stats.npz", "train.beton", "val.json"])
def test_a_folder_or_a_link_to_nothing_in_the_place_of_a_file_is_refused_before_any_work(
    src: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "out" / name
    path.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{path} is there and was not made by this command"):
        run(src, tmp_path / "out")
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match=rf"{path} is there and was not made by this command"):
        run(src, tmp_path / "out")


def test_when_the_rejected_pictures_are_mended_it_says_what_to_remove(
    src: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=rf"mend them and give another folder than {out}$"):
        run(src, out, rejects=0.01)
    (src / "train" / "n2" / "bad.jpg").unlink()
    said = (
        rf"{out}/\.prep/train was prepared from other pictures .*; give another folder than {out}, "
        rf"or remove {out}/\.prep and what is called train in {out}$"
    )
    with pytest.raises(UserError, match=said):
        run(src, out, rejects=0.01)
    shutil.rmtree(out / ".prep")
    run(src, out, rejects=0.01)


def test_another_size_is_named_as_the_option_has_it(src: Path, tmp_path: Path) -> None:
    run(src, tmp_path / "out")
    said = (
        r"train\.beton was prepared with --size 32, this command says 64; give another folder than"
    )
    with pytest.raises(UserError, match=said):
        run(src, tmp_path / "out", settings=Settings(side=64))


def test_the_work_of_resize_is_not_taken_for_its_own(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(resize, "check_splits", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resize.resize(find_source(src), tmp_path, Options(settings=SMALL, jobs=1))
    with pytest.raises(UserError, match=r"train was prepared by `prep resize`, which this is not"):
        run(src, tmp_path)


def test_too_many_rejects_end_it_and_a_larger_limit_goes_on(src: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 25 pictures of train were rejected"):
        run(src, tmp_path / "out", rejects=0.01)
    reject = json.loads((tmp_path / "out" / "rejects.jsonl").read_text())
    assert reject["path"] == "train/n2/bad.jpg"
    assert not list((tmp_path / "out").glob("*.beton"))
    assert [summary.done_now for summary in run(src, tmp_path / "out")] == [0, 0, 0]


def test_a_finished_split_is_left_alone_by_the_next_run(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream was its beton: going on with that would change a file under its final name."""
    found, options = find_source(src), Options(jobs=1, settings=SMALL, max_rejects=1.0)
    finish = build._finish

    def only_train(source: object, name: Path, *rest: object) -> object:
        if name.name != "train":
            raise KeyboardInterrupt
        return finish(source, name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(build, "_finish", only_train)
        with pytest.raises(KeyboardInterrupt):
            build.build(found, tmp_path, options)
    beton = tmp_path / "train.beton"
    before, links = beton.stat(), beton.stat().st_nlink
    assert links == 1
    build.build(found, tmp_path, options)
    after = beton.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    verify(beton, 1)
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / ".prep" / "train").exists()


def test_killed_between_a_beton_and_its_card_it_goes_on(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, options = find_source(src), Options(jobs=1, settings=SMALL, max_rejects=1.0)
    build.build(found, tmp_path / "whole", options)

    @contextlib.contextmanager
    def killed(*_: object) -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(companions, "new_card", killed)
        with pytest.raises(KeyboardInterrupt):
            build.build(found, tmp_path / "killed", options)
    assert (tmp_path / "killed" / "train.beton").exists()
    build.build(found, tmp_path / "killed", options)
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == files
    for name in ("train.beton", "train.json", "val.beton", "val.json"):
        left, right = tmp_path / "killed" / name, tmp_path / "whole" / name
        assert left.read_bytes() == right.read_bytes(), name


def test_it_does_not_take_a_beton_from_under_another_writer(src: Path, tmp_path: Path) -> None:
    options = Options(jobs=1, settings=SMALL, max_rejects=1.0)
    with whole_file(tmp_path / "train.beton") as partial:
        partial.write_text("theirs")
        with pytest.raises(UserError, match="is being written by another run"):
            build.build(find_source(src), tmp_path, options)
    assert (tmp_path / "train.beton").read_text() == "theirs"


def test_two_runs_at_once(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with work_folder(src, out), pytest.raises(UserError, match="is being written by another run"):
        run(src, out)
    run(src, out)


def test_a_full_disk_ends_it_and_room_lets_it_go_on(
    src: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full wherever a split writes; where at least is asserted at the end."""
    monkeypatch.setattr("prep.beton.PAGE_SIZE", 1 << 14)
    monkeypatch.setattr("prep.stream.PAGE_SIZE", 1 << 14)
    run(src, tmp_path / "whole")
    expected, out = contents(tmp_path / "whole"), small_disk / "out"
    full_at = []
    for blocks in range(75):
        filler, failure = fill_disk(small_disk, blocks), None
        try:
            run(src, out)
        except OSError as error:
            failure = error
        if failure is not None:
            assert "No space left on device" in str(failure)
            full_at.append(str(Path(failure.filename).relative_to(out)))
            assert not list(out.glob("*.beton"))
            all_taken = (out / "rejects.jsonl").exists()
            filler.unlink()
            again = run(src, out)
            assert not all_taken or [summary.done_now for summary in again] == [0, 0, 0]
        assert contents(out) == expected
        shutil.rmtree(out)
    assert 40 < len(full_at) < 75
    assert set(full_at) >= {
        *(".prep/train/beton", ".prep/train/000000.parquet", ".prep/train/sums.checkpoint"),
        *("train.parquet", "train.beton"),
    }


def test_a_disk_that_is_full_for_the_claims_is_told_by_the_beton(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "claim_all", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(src, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "train.beton")


def test_a_split_without_any_picture_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "src" / split / "a").mkdir(parents=True)
        (tmp_path / "src" / split / "a" / "1.jpg").write_bytes(small_jpeg(1))
    (tmp_path / "src" / "val" / "a" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"val holds no samples; see .*out/rejects\.jsonl"):
        run(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out" / "val.beton").exists()


def test_a_folder_in_the_source_is_refused(src: Path) -> None:
    with pytest.raises(UserError, match="lies in the source"):
        run(src, src / "out")
