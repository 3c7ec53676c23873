"""`prep resize --part I/N`: parts side by side, in any order, killed, and the bytes of one run."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_resize import contents, run, tiny_source
from typer.testing import CliRunner

from prep import resize, resize_unit
from prep.claim import PARTS, Claim
from prep.cli import app
from prep.images import Settings
from prep.pictures import runs
from prep.plan import Options
from prep.program import UserError
from prep.sources import find_source, listing
from prep.sources.listing import Listing, Picture, Source

OPTIONS = Options(Settings(side=32), jobs=1, max_rejects=1)


@pytest.fixture(scope="module", params=["tree", "tar"])
def options(request: pytest.FixtureRequest) -> Options:
    return dataclasses.replace(OPTIONS, layout=request.param)


@pytest.fixture(scope="module", autouse=True)
def _small_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "UNIT_SIZE", 2)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return find_source(tiny_source(tmp_path_factory.mktemp("source") / "src", train=5))


@pytest.fixture(scope="module")
def whole(source: Source, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    resize.resize(source, out, options)
    return out


def part(source: Source, out: Path, options: Options, number: int, of: int) -> int:
    """Do a part; returns how many of train's units are missing."""
    done = resize.resize_part(source, out, dataclasses.replace(options, part=(number, of)))
    return next(summary.missing for summary in done if summary.split == "train")


@hypothesis_settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.integers(1, 7).flatmap(lambda n: st.permutations(range(1, n + 1))))
def test_parts_in_any_order_end_with_the_bytes_of_one_run(
    source: Source,
    options: Options,
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[int],
) -> None:
    out = tmp_path_factory.mktemp("parts") / "out"
    missing = [part(source, out, options, number, len(parts)) for number in parts]
    assert missing[-1] == 0
    assert missing == sorted(missing, reverse=True)
    summaries = resize.resize(source, out, options)
    assert [summary.done_now for summary in summaries] == [0, 0]
    assert contents(out) == contents(whole)


def test_the_whole_run_does_what_parts_have_left(
    source: Source, options: Options, whole: Path, tmp_path: Path
) -> None:
    assert part(source, tmp_path / "out", options, 2, 3) > 0
    done = sum(summary.done_now for summary in resize.resize(source, tmp_path / "out", options))
    assert 0 < done < 13
    assert contents(tmp_path / "out") == contents(whole)


def test_parts_write_side_by_side_and_a_whole_run_does_not(
    source: Source,
    options: Options,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Part 2 begins and ends, and a whole run is refused, while part 1 is in its first unit."""
    out, real, inside = tmp_path / "out", resize.resize_unit, []

    def slow(unit: resize_unit.Unit) -> tuple[int, int]:
        if not inside:
            inside.append(unit)
            part(source, out, options, 2, 2)
            with pytest.raises(UserError, match="is being written by another run"):
                resize.resize(source, out, options)
        return real(unit)

    monkeypatch.setattr(resize, "resize_unit", slow)
    assert part(source, out, options, 1, 2) == 0
    resize.resize(source, out, options)
    assert contents(out) == contents(whole)


def test_a_unit_that_two_workers_do_at_once_is_done_by_both(
    source: Source, options: Options, whole: Path, tmp_path: Path
) -> None:
    """As when a cluster gives a slow worker's unit to another: the slow one ends later."""
    out = tmp_path / "out"
    part(source, out, options, 3, 3)
    work, images = out / ".prep" / "train", out / "train.partial"
    claim = Claim(out / ".prep" / "workers", PARTS)
    first = next(runs(source, "train", options.settings, options.layout == "tar"))
    unit = resize_unit.Unit(first, options.layout, images, work, claim)
    read, inside = first.read, []

    def slow(root: Path, entries: Listing) -> Iterator[Picture]:
        for picture in read(root, entries):
            if not inside:
                inside.append(picture)
                assert resize_unit.resize_unit(unit) == (2, 0)
            yield picture

    late = dataclasses.replace(unit, run=dataclasses.replace(first, read=slow))
    assert resize_unit.resize_unit(late) == (2, 0)
    assert not list(out.rglob("*.partial/*.partial"))
    resize.resize(source, out, options)
    assert contents(out) == contents(whole)


def test_where_there_are_no_locks_parts_do_the_same_and_an_older_run_ends(
    source: Source,
    options: Options,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    out, real, inside = tmp_path / "out", resize.resize_unit, []
    part(source, out, options, 1, 3)

    def slow(unit: resize_unit.Unit) -> tuple[int, int]:
        if not inside:
            inside.append(unit)
            resize.resize(source, out, options)  # which no lock keeps out
        return real(unit)

    monkeypatch.setattr(resize, "resize_unit", slow)
    with pytest.raises(UserError, match="the run that this worker belongs to is over"):
        part(source, out, options, 2, 3)
    assert contents(out) == contents(whole)


def test_a_finished_set_has_no_part_left(
    source: Source, options: Options, whole: Path, tmp_path: Path
) -> None:
    resize.resize(source, tmp_path / "out", options)
    done = resize.resize_part(source, tmp_path / "out", dataclasses.replace(options, part=(1, 2)))
    assert [summary.units for summary in done] == [0, 0]
    resize.resize(source, tmp_path / "out", options)
    assert contents(tmp_path / "out") == contents(whole)


def test_another_option_is_refused_to_a_part(source: Source, tmp_path: Path) -> None:
    part(source, tmp_path / "out", OPTIONS, 1, 2)
    other = dataclasses.replace(OPTIONS, settings=Settings(side=32, quality=50))
    with pytest.raises(UserError, match="--quality 95, this command says 50"):
        part(source, tmp_path / "out", other, 2, 2)


def test_pictures_that_were_removed_between_parts_are_made_again(
    source: Source, tmp_path: Path
) -> None:
    part(source, tmp_path / "out", OPTIONS, 1, 2)
    (tmp_path / "out" / "train.partial").rename(tmp_path / "elsewhere")
    part(source, tmp_path / "out", OPTIONS, 2, 2)
    resize.resize(source, tmp_path / "out", OPTIONS)
    run(source, tmp_path / "alone")
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


@pytest.mark.parametrize("value", ["0/2", "3/2", "1", "/", "1/", "-1/2", "a/b", "1/2/3", ""])
def test_a_part_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    arguments = ["resize", str(tmp_path / "src"), str(tmp_path / "out"), f"--part={value}"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "give I/N" in refused.output
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_left(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "src", train=5, bad=0)
    command = ["resize", str(source), str(tmp_path / "out"), "--size=32", "--jobs=1"]
    said = CliRunner().invoke(app, [*command, "--part=1/2"]).output
    assert "part 1/2, 6 pictures; 2 of 5 units left by all parts" in said
    assert "the same command without --part finishes" in said
    told = json.loads(CliRunner().invoke(app, [*command, "--part=1/2", "--json"]).stdout)
    assert told["part"] == "1/2"
    assert told["splits"]["train"] == {"done_now": 0, "units": 5, "missing": 2}
    assert CliRunner().invoke(app, [*command, "--part=1/2", "--dask=tcp://x:1"]).exit_code == 2
    assert "10 images, 0 rejected" in CliRunner().invoke(app, command).output
    again = CliRunner().invoke(app, [*command, "--part=2/2"]).output
    assert again.count("already prepared") == 2


def test_of_parts_that_begin_at_once_with_other_options_one_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes its plan between this one's look at it and its writing."""
    real = resize.write_first

    def second(path: Path, text: str) -> None:
        if path.parent.name == "train":
            real(path, text.replace('"side": 64', '"side": 32'))
        real(path, text)

    monkeypatch.setattr(resize, "write_first", second)
    options = Options(settings=Settings(side=64), jobs=1, part=(1, 2))
    with pytest.raises(UserError, match="was prepared with --size 32, this command says 64"):
        resize.resize_part(source, tmp_path / "out", options)


def test_there_may_be_more_parts_than_units(source: Source, tmp_path: Path) -> None:
    options = Options(settings=Settings(side=64), jobs=1, part=(10**30, 10**30))
    assert [each.done_now for each in resize.resize_part(source, tmp_path / "out", options)] == [
        0,
        0,
    ]
