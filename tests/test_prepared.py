"""The prepared split on disk: what opens, what is refused, where its companions lie."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep import prepared
from prep.handover import read_card
from prep.place import Place, read_unchanged
from prep.prepared import open_prepared
from prep.program import UserError


@pytest.fixture
def copy(prepared_set: Path, tmp_path: Path) -> Path:
    """A prepared set that a test may change."""
    return Path(shutil.copytree(prepared_set, tmp_path / "out"))


def test_a_prepared_split_opens_in_manifest_order(prepared_set: Path) -> None:
    split = open_prepared(prepared_set / "train")
    manifest = pq.read_table(prepared_set / "train.parquet").to_pylist()
    assert len(split) == 18
    assert split.names.to_pylist() == [row["name"] for row in manifest]
    assert split.labels.tolist() == [row["label"] for row in manifest]
    assert split.labels.dtype == np.int64
    assert split.sizes.tolist() == [row["bytes"] for row in manifest]
    assert split.crc32.tolist() == [row["crc32"] for row in manifest]
    assert [bytes(digest) for digest in split.digests] == [row["sha256"] for row in manifest]
    assert split.card == read_card(prepared_set / "train.json")


def test_places_of_a_range(prepared_set: Path) -> None:
    split = open_prepared(prepared_set / "train")
    expected = [prepared_set / "train" / n for n in split.names.to_pylist()[4:7]]
    assert [place.path for place in split.places(4, 7)] == expected
    for place in split.places(0, len(split)):
        assert read_unchanged(place) == place.path.read_bytes()


def test_a_place_is_a_file_or_a_part_of_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    whole = Place(tmp_path, "file", 0, None, 0)
    part = Place(tmp_path, "file", 30, 20, zlib.crc32(bytes(range(30, 50))))
    assert whole.read() == bytes(range(100))
    assert read_unchanged(part) == bytes(range(30, 50))
    (tmp_path / "file").write_bytes(bytes(range(40)))  # cut short
    with pytest.raises(UserError, match=r"file has changed since it was prepared"):
        read_unchanged(part)


@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path, size: int | None, kind: str) -> None:
    if kind == "a pipe":
        os.mkfifo(tmp_path / "x")
    else:
        (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=r"x cannot be read: .*; remove this prepared set and run"):
        read_unchanged(Place(tmp_path, "x", 0, size, 0))


@pytest.mark.parametrize("name", [".", "../train", "../val/../train", "x/.."])
def test_a_folder_without_a_name_of_its_own_opens(
    copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (copy / "train" / "x").mkdir()
    monkeypatch.chdir(copy / "train")
    assert len(open_prepared(Path(name))) == 18
    assert prepared.split_stats_path(Path(name)).samefile(copy / "train.stats.npz")


def test_rejected_rows_are_no_samples(tmp_path: Path) -> None:
    ok = {"label": 3, "name": "a/1.jpg", "bytes": 5, "crc32": 1, "sha256": b"x" * 32}
    bad = {"label": 3, "name": "a/2.jpg", "source": "s/2", "reason": "why", "status": "rejected"}
    rows = [{field.name: None for field in prepared.SCHEMA} | row for row in (bad, ok, bad)]
    rows[1] |= {"status": "ok"}
    rows_table = pa.Table.from_pylist(rows, schema=prepared.SCHEMA)
    prepared.write_manifest([rows_table], {"layout": "tree"}, tmp_path / "s.parquet")
    assert prepared.plan_of(tmp_path / "s") == {"layout": "tree"}
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.equals(prepared.SCHEMA)
    assert table["status"].to_pylist() == ["rejected", "ok", "rejected"]
    rejected = list(prepared.rejected_rows(tmp_path / "s"))
    prepared.write_rejects({"s": rejected}, tmp_path / "r.jsonl")
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"split": "s", "path": "s/2", "reason": "why"}
    ] * 2


# --------------------------------------------------------------------------- refusals


def test_what_is_no_folder_is_refused(prepared_set: Path) -> None:
    with pytest.raises(UserError, match=r"train\.json is not a folder; give OUT/train"):
        open_prepared(prepared_set / "train.json")


def test_any_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.json is missing"):
        open_prepared(tmp_path)


def test_a_missing_manifest_is_named(copy: Path) -> None:
    (copy / "train.parquet").unlink()
    with pytest.raises(UserError, match=r"train\.parquet is missing; prepare the data again"):
        open_prepared(copy / "train")


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_in_the_place_of_the_manifest_is_named(copy: Path, kind: str) -> None:
    path = copy / "train.parquet"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    for read in (open_prepared, prepared.plan_of, prepared.originals):
        with pytest.raises(UserError, match=rf"{path} cannot be read: it is a {kind}, not a reg"):
            read(copy / "train")


@pytest.mark.parametrize("data", [b"", b"garbage", b"PAR1" + bytes(90) + b"PAR1"])
def test_a_damaged_manifest_is_refused(copy: Path, data: bytes) -> None:
    (copy / "train.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"train\.parquet is damaged"):
        open_prepared(copy / "train")


@pytest.mark.parametrize("column", ["label", "sha256", "status", "name"])
def test_a_manifest_without_a_column_is_refused(copy: Path, column: str) -> None:
    table = pq.read_table(copy / "train.parquet").drop_columns([column])
    pq.write_table(table, copy / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet is damaged"):
        open_prepared(copy / "train")


def test_a_manifest_of_fewer_samples_than_the_card_s_is_refused(copy: Path) -> None:
    pq.write_table(pq.read_table(copy / "train.parquet").slice(1), copy / "train.parquet")
    with pytest.raises(UserError, match=r"has 17 samples, the card beside it says 18"):
        open_prepared(copy / "train")


@pytest.mark.parametrize("column", ["label", "sha256"])
def test_a_manifest_of_other_labels_or_pictures_than_the_card_s_is_refused(
    copy: Path, column: str
) -> None:
    table = pq.read_table(copy / "train.parquet")
    values = table[column].to_pylist()
    values[0], values[-1] = values[-1], values[0]
    changed = pa.array(values, table.schema.field(column).type)
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, changed), copy / "train.parquet")
    with pytest.raises(UserError, match=r"other pictures or labels than the card"):
        open_prepared(copy / "train")


def test_a_flipped_bit_in_the_manifest_never_changes_a_label(copy: Path) -> None:
    manifest = copy / "train.parquet"
    data = manifest.read_bytes()
    expected = open_prepared(copy / "train")
    generator = np.random.default_rng(8)
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        changed[generator.integers(len(data))] ^= 1 << generator.integers(8)
        manifest.write_bytes(changed)
        try:
            split = open_prepared(copy / "train")
        except UserError:
            refused += 1
            continue
        assert np.array_equal(split.labels, expected.labels)
        assert np.array_equal(split.digests, expected.digests)
    assert refused > 10


def test_a_whole_set_in_place_of_a_split_is_told(prepared_set: Path) -> None:
    with pytest.raises(UserError, match=f"whole prepared set; give {prepared_set / 'train'}"):
        open_prepared(prepared_set)
