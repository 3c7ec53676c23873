"""The layout "tar": WebDataset opens it, stats and write-beton read it, equal bytes every time."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from conftest import CLASSES
from test_resize import KilledError, Mortal, contents

from prep import finish, resize_unit, shards, stats, write
from prep.finish import SplitSummary
from prep.handover import read_card
from prep.images import Settings
from prep.place import read_unchanged
from prep.plan import Options
from prep.prepared import open_prepared, plan_of
from prep.program import UserError
from prep.resize import resize
from prep.sources import find_source, listing


def run(source: Path, out: Path, layout: str = "tar", jobs: int = 1) -> list[SplitSummary]:
    options = Options(Settings(), layout=layout, jobs=jobs, max_rejects=0.0)
    return resize(find_source(source), out, options)


@pytest.fixture(scope="module")
def tarred(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tarred") / "out"
    run(source, out)
    return out


def test_one_tar_a_class_with_the_tree_s_pictures(prepared_set: Path, tarred: Path) -> None:
    assert set(contents(tarred / "train")) == {f"{name}.tar" for name in CLASSES}
    split = open_prepared(tarred / "train")
    tree = open_prepared(prepared_set / "train")
    assert plan_of(tarred / "train")["layout"] == "tar"
    assert split.labels.tolist() == tree.labels.tolist()
    for place, file in zip(split.places(0, 18), tree.places(0, 18), strict=True):
        assert read_unchanged(place) == file.path.read_bytes()
    assert read_card(tarred / "train.json") == read_card(prepared_set / "train.json")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_opens_it(tarred: Path) -> None:
    for label, name in enumerate(CLASSES):
        path = str(tarred / "train" / f"{name}.tar")
        samples = list(webdataset.WebDataset(path, shardshuffle=False))
        split = open_prepared(tarred / "train")
        places = split.places(0, 18)[6 * label : 6 * label + 6]
        assert [sample["jpg"] for sample in samples] == [read_unchanged(p) for p in places]
        assert {sample["cls"] for sample in samples} == {str(label).encode()}


def test_headers_hold_no_time_and_no_user(tarred: Path) -> None:
    with tarfile.open(tarred / "train" / f"{CLASSES[0]}.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.name.count(".") == 1


def test_stats_and_betons_are_those_of_the_tree(
    prepared_set: Path, betons: Path, tarred: Path, tmp_path: Path
) -> None:
    measured = stats.measure(tarred / "train", jobs=1).samples.output
    assert measured.read_bytes() == (prepared_set / "train.stats.npz").read_bytes()
    write.write_beton(tarred / "train", tmp_path / "train.beton", "jpg", jobs=2)
    assert (tmp_path / "train.beton").read_bytes() == (betons / "train.beton").read_bytes()
    assert (tmp_path / "train.json").read_bytes() == (betons / "train.json").read_bytes()


def test_it_is_a_source_again(tarred: Path, tmp_path: Path) -> None:
    """What --layout tar writes, the WebDataset reader reads."""
    source = find_source(tarred)
    assert source.kind == "WebDataset tars"
    assert [len(split.listing) for split in source.splits.values()] == [18, 9]
    resize(source, tmp_path / "out", Options(Settings(side=32), jobs=1))


def test_a_class_called_as_a_split_stays_in_its_own(source: Path, tmp_path: Path) -> None:
    renamed = Path(shutil.copytree(source, tmp_path / "source"))
    for split in ("train", "val"):
        (renamed / split / CLASSES[1]).rename(renamed / split / "train")
        (renamed / split / CLASSES[2]).rename(renamed / split / "test-tube")
    run(renamed, tmp_path / "tarred")
    again = find_source(tmp_path / "tarred")
    assert {name: len(split.listing) for name, split in again.splits.items()} == {
        "train": 18,
        "val": 9,
    }


def test_a_part_that_was_cut_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shards.write_shard

    def cutting(shard: shards.Shard) -> tuple[int, list[int]]:
        part = resize_unit.part_file(shard.work, shard.parts[-1])
        os.truncate(part, part.stat().st_size - 1)
        return real(shard)

    monkeypatch.setattr(finish, "write_shard", cutting)
    with pytest.raises(
        UserError, match=r"0\.part ends before n\d+/.* does: it has changed; remove"
    ):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out" / "train.json").exists()


def test_workers_and_units_do_not_matter(
    source: Path, tarred: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 4)
    run(source, tmp_path / "two", jobs=2)
    for split in ("train", "val"):
        assert contents(tmp_path / "two" / split) == contents(tarred / split)
        manifests = [out / f"{split}.parquet" for out in (tmp_path / "two", tarred)]
        assert pq.read_table(manifests[0]).equals(pq.read_table(manifests[1]))


def test_killed_at_any_step_it_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 7)
    monkeypatch.setattr(resize_unit, "_sync", lambda *_: None)
    small = find_source(source, ("val",))
    options = Options(Settings(side=16), layout="tar", jobs=1)
    resize(small, tmp_path / "whole", options)
    expected = contents(tmp_path / "whole")
    for steps in range(200):
        out = tmp_path / f"killed{steps}"
        with monkeypatch.context() as mortality:
            mortal = Mortal(mortality, steps)
            try:
                resize(small, out, options)
            except KilledError:
                assert mortal.dead
            else:
                break
        resize(small, out, options)
        assert contents(out) == expected, steps
    assert steps > 20


def test_another_layout_is_refused_by_name(source: Path, tarred: Path) -> None:
    with pytest.raises(UserError, match="was prepared with --layout tar, this command says tree"):
        run(source, tarred, layout="tree")
    assert all(summary.already_done for summary in run(source, tarred))


@pytest.mark.parametrize("damage", ["changed", "cut", "vanished"])
def test_a_changed_tar_is_noticed(tarred: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(tarred, tmp_path / "out")
    path = tmp_path / "out" / "train" / f"{CLASSES[1]}.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data if damage == "changed" else data[:5000])
    if damage == "vanished":
        path.unlink()
    said = "cannot be read: No such file" if damage == "vanished" else "has changed since it was"
    with pytest.raises(UserError, match=rf"{CLASSES[1]}\.tar {said}"):
        stats.measure(tmp_path / "out" / "train", jobs=1)
    for mode in ("jpg", "raw"):
        with pytest.raises(UserError, match=rf"{CLASSES[1]}\.tar {said}"):
            write.write_beton(tmp_path / "out" / "train", tmp_path / "train.beton", mode, jobs=2)
    assert not list(tmp_path.glob("train*"))


def test_a_split_of_rejects_alone_has_no_tar(tmp_path: Path) -> None:
    (tmp_path / "src" / "a").mkdir(parents=True)
    (tmp_path / "src" / "a" / "1.jpg").write_bytes(b"no picture")
    options = Options(Settings(side=16), layout="tar", jobs=1, max_rejects=1.0)
    (summary,) = resize(find_source(tmp_path / "src"), tmp_path / "out", options)
    assert (summary.samples, summary.rejected) == (0, 1)
    assert contents(tmp_path / "out" / "train") == {}
