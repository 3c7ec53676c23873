"""Parquet shards of Hugging Face's datasets: rows, names, labels, units that follow row groups."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_jpeg

from prep import manifest
from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources import find_source, listing, parquet_rows
from prep.sources.listing import Source

NAMES = ["tench, Tinca tinca", "goldfish", "a/b"]


def write_shard(
    path: Path,
    rows: list[tuple[bytes | None, str | None, int]],
    names: list[str] | None = NAMES,
    group: int = 3,
) -> None:
    """As datasets writes it: image struct, label, features in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array(
        [{"bytes": data, "path": name} for data, name, _ in rows],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": image, "label": pa.array([row[2] for row in rows], pa.int64())})
    if names is not None:
        label = {"names": names, "_type": "ClassLabel"}
        features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=group)


def some_rows(count: int, start: int = 0, classes: int = 3) -> list[tuple[bytes | None, str, int]]:
    return [(small_jpeg(n), f"p{n}.JPEG", n % classes) for n in range(start, start + count)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    data = tmp_path / "hf" / "data"
    write_shard(data / "train-00000-of-00002.parquet", some_rows(8))
    write_shard(data / "train-00001-of-00002.parquet", some_rows(5, 8))
    write_shard(data / "validation-00000-of-00001.parquet", some_rows(3, 20))
    write_shard(data / "test-00000-of-00001.parquet", [(small_jpeg(50), None, -1)])
    return tmp_path / "hf"


def read_all(source: Source, split: str) -> list[tuple[str, int, Any]]:
    part = source.splits[split]
    return [(p.name, p.label, p.data) for p in part.read(source.root, part.listing)]


def test_every_row_is_a_picture_with_its_label_and_name(shards: Path) -> None:
    source = find_source(shards)
    assert source.kind == "Hugging Face parquet shards"
    assert list(source.splits) == ["train", "val", "test"]
    assert source.classes == tuple(NAMES)
    found = read_all(source, "train")
    assert [(label, data) for _, label, data in found] == [
        (n % 3, small_jpeg(n)) for n in range(13)
    ]
    assert found[9][0] == "data/train-00001-of-00002.parquet/p9.JPEG"
    (unlabelled,) = read_all(source, "test")
    assert unlabelled[0].endswith("test-00000-of-00001.parquet/00000000")
    assert unlabelled[1] == UNLABELLED


def test_units_end_where_row_groups_end(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.sources.parquet.UNIT_SIZE", 4)
    train = find_source(shards).splits["train"]
    assert train.unit_bounds().tolist() == [0, 6, 11, 13]  # groups 3 3 2 and 3 2


@pytest.mark.parametrize(
    ("rows", "bounds"),
    [
        (7, [0, 7]),
        (8, [0, 4, 8]),
        (15, [0, 5, 10, 15]),
        (80, [0, 10, 20, 30, 40, 50, 60, 70, 80]),  # not more parts: each reads from the start
    ],
)
def test_a_large_row_group_is_cut_into_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, bounds: list[int]
) -> None:
    monkeypatch.setattr("prep.sources.parquet.UNIT_SIZE", 4)
    monkeypatch.setattr("prep.sources.parquet_rows.IMAGES_AT_ONCE", 3)
    write_shard(tmp_path / "train-0.parquet", [(b"%d" % n, None, 0) for n in range(rows)], group=90)
    source = find_source(tmp_path)
    train = source.splits["train"]
    assert train.unit_bounds().tolist() == bounds
    for start, stop in itertools.pairwise(bounds):
        part = train.read(tmp_path, train.listing.part(start, stop))
        assert [p.data for p in part] == [b"%d" % n for n in range(start, stop)]


def test_a_row_group_is_never_whole_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prep.sources.parquet_rows.IMAGES_AT_ONCE", 2)
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    rows = {"image": [bytes([n]) * 300_000 for n in range(100)], "label": [0] * 100}  # 30 MB
    pq.write_table(
        pa.table(rows, schema),
        tmp_path / "train-0.parquet",
        compression="none",
        use_dictionary=False,
        write_batch_size=1,
    )
    source = find_source(tmp_path)
    train = source.splits["train"]
    before, most = pa.total_allocated_bytes(), 0
    for number, picture in enumerate(train.read(tmp_path, train.listing.part(80, 95)), 80):
        assert picture.data == bytes([number]) * 300_000
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 6_000_000


def test_any_rows_in_rising_order_are_read(shards: Path) -> None:
    source = find_source(shards)
    train = source.splits["train"]
    some = train.listing.take(np.array([1, 2, 7, 8, 12]))
    pictures = list(train.read(source.root, some))
    assert [p.data for p in pictures] == [small_jpeg(n) for n in (1, 2, 7, 8, 12)]


def test_rows_of_a_large_group_are_read_some_at_a_time(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", [(b"%d" % n, None, 0) for n in range(300)], group=200)
    source = find_source(tmp_path)
    assert [data for _, _, data in read_all(source, "train")] == [b"%d" % n for n in range(300)]


def test_a_row_without_an_image_has_a_reason(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", [(None, "x.jpg", 0), (b"y", "y.jpg", 1)])
    source = find_source(tmp_path)
    first, second = source.splits["train"].read(tmp_path, source.splits["train"].listing)
    assert (first.data, first.reason) == (None, "the row holds no image")
    assert second.data == b"y"


def test_an_image_of_bytes_alone_is_read(tmp_path: Path) -> None:
    table = pa.table({"jpg": pa.array([b"one", b"two"]), "cls": pa.array([1, 0], pa.int32())})
    pq.write_table(table, tmp_path / "train.parquet")
    source = find_source(tmp_path)
    assert source.classes == ("0000", "0001")
    assert [(label, data) for _, label, data in read_all(source, "train")] == [
        (1, b"one"),
        (0, b"two"),
    ]


def test_a_manifest_names_the_classes_by_their_rank(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", some_rows(10, classes=10), names=None)
    source = find_source(tmp_path, manifest=manifest.load("cifar-10"))
    assert source.classes[:2] == ("airplane", "automobile")
    with pytest.raises(UserError, match=r"has 10 classes, ImageNet.* has 1000"):
        find_source(tmp_path, manifest=manifest.load("imagenet-1k"))


def test_the_counts_alone_tell_a_known_data_set(tmp_path: Path) -> None:
    rows = [(b"x", None, n % 10) for n in range(50_000)]
    write_shard(tmp_path / "train-0.parquet", rows, names=None, group=50_000)
    assert find_source(tmp_path).classes[0] == "airplane"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"picture": [b"x"], "label": [0]}, r"has columns picture, label; expected image"),
        ({"image": [b"x"], "label": ["cat"]}, r"has columns image, label; expected image"),
        ({"image": [b"x"], "label": [-2]}, r"a label is -2; expected a class's number"),
        ({"image": [b"x"], "label": [None]}, r"has columns|a label is None"),
    ],
)
def test_what_is_no_image_table_is_refused(
    tmp_path: Path, table: dict[str, list[Any]], message: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match=message):
        find_source(tmp_path)


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.uint8()), pa.int64(), pa.null()])
def test_an_image_whose_bytes_are_none_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    image = pa.array([None], pa.struct([("bytes", kind), ("path", pa.string())]))
    pq.write_table(pa.table({"image": image, "label": [0]}), tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match=r"has columns image, label; expected image .bytes and"):
        find_source(tmp_path)


@pytest.mark.parametrize("other", ["train-00001-of-00002", "validation-00000-of-00001"])
def test_shards_that_name_the_classes_differently_are_refused(shards: Path, other: str) -> None:
    path = shards / "data" / f"{other}.parquet"
    write_shard(path, some_rows(3), names=[NAMES[0], "shark", NAMES[2]])
    first = "data/train-00000-of-00002.parquet"
    with pytest.raises(
        UserError, match=rf"{first} and .*{other}.* name class 1 differently .'goldfish', 'shark'"
    ):
        find_source(shards)
    write_shard(path, some_rows(3), names=[*NAMES, "shark"])
    with pytest.raises(UserError, match=r"name class 3 differently .None, 'shark'"):
        find_source(shards)
    write_shard(path, some_rows(3), names=None)  # says nothing, contradicts nothing
    assert find_source(shards).classes == tuple(NAMES)


def test_class_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", some_rows(3), names=["a", "\ud800", "c"])
    with pytest.raises(UserError, match=r"has a class '.*ud800', a name that is not UTF-8"):
        find_source(tmp_path)


def test_metadata_that_cannot_be_read_names_no_classes(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x"], "label": [0]})
    for text in ("{", "[]", "[" * 100_000, '{"info": {"features": {"label": 3}}}'):
        marked = table.replace_schema_metadata({"huggingface": text})
        pq.write_table(marked, tmp_path / "train-0.parquet")
        assert find_source(tmp_path).classes == ("0000",)


def test_a_damaged_page_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train-0.parquet"
    rows = [(b"%06d" % n * 20, None, 0) for n in range(30)]
    write_shard(path, rows, group=30)
    source = find_source(tmp_path)
    data = bytearray(path.read_bytes())
    data[: data.index(b"000029")] = bytes(data.index(b"000029"))
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-0\.parquet cannot be read as parquet .*get it"):
        read_all(source, "train")


def test_a_picture_s_name_that_is_no_text_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train-0.parquet"
    write_shard(path, [(b"x", "nameless.jpg", 0)])
    path.write_bytes(path.read_bytes().replace(b"nameless", b"\xff\xfe\xfd\xfcless"))
    with pytest.raises(UserError, match=r"train-0\.parquet cannot be read as parquet .*utf-8"):
        find_source(tmp_path)


def test_a_file_that_became_shorter_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "train-0.parquet"
    write_shard(path, some_rows(5))
    source = find_source(tmp_path)
    write_shard(path, some_rows(4))
    with pytest.raises(UserError, match=r"train-0\.parquet has 4 rows, and had more when it was"):
        read_all(source, "train")


def test_a_row_group_that_is_shorter_than_it_says_gives_no_picture_another_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "train-0.parquet", some_rows(4), group=2)
    monkeypatch.setattr("prep.sources.parquet_rows.group_sizes", lambda _: [3, 1])
    source = find_source(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read as parquet .row group 0 ends after 2"):
        read_all(source, "train")
    monkeypatch.setattr("prep.sources.parquet.group_sizes", lambda _: [3, 2])
    with pytest.raises(UserError, match=r"train-0\.parquet has 4 rows, its footer says 5; get it"):
        find_source(tmp_path)


@pytest.mark.parametrize("change", ["content", "copy"])
def test_the_fingerprint_changes_with_the_content_not_with_the_time(
    tmp_path: Path, change: str
) -> None:
    """The same names, labels and number of rows."""
    path = tmp_path / "train-0.parquet"
    write_shard(path, [(b"one", "p.jpg", 0)])
    before = find_source(tmp_path).fingerprint("train")
    write_shard(path, [(b"two" if change == "content" else b"one", "p.jpg", 0)])
    os.utime(path, (1, 1))
    assert (find_source(tmp_path).fingerprint("train") == before) == (change == "copy")


def test_garbage_and_a_cut_shard_are_refused(shards: Path) -> None:
    path = shards / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"train-00001.* cannot be read as parquet .*get it again"):
        find_source(shards)


def test_labels_beyond_the_names_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", some_rows(6, classes=6))
    with pytest.raises(UserError, match="names 3 classes, but a label is 5"):
        find_source(tmp_path)


def test_the_listing_is_small(shards: Path) -> None:
    train = find_source(shards).splits["train"].listing
    assert train.places.dtype == listing.PLACE
    assert train.places.itemsize == 24


def test_rows_without_label_belong_to_a_test_split_only(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", [(b"x", "x.jpg", 0), (b"y", "y.jpg", -1)])
    with pytest.raises(UserError, match=r"y\.jpg has no label; only a test split may be without"):
        find_source(tmp_path)


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", some_rows(3))
    write_shard(tmp_path / "validation-0.parquet", [])
    with pytest.raises(UserError, match="holds no pictures for val"):
        find_source(tmp_path)


def test_large_images_are_read_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [{"bytes": bytes([n]) * 1000, "path": f"{n}.jpg"} for n in range(9)]
    table = pa.table({"image": images, "label": [0] * 9})
    pq.write_table(table, tmp_path / "train-0.parquet")
    monkeypatch.setattr(parquet_rows, "BYTES_AT_ONCE", 3000)
    asked: list[int] = []
    real = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, batch_size: int, **options: Any) -> Any:
        asked.append(batch_size)
        return real(self, batch_size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    split = find_source(tmp_path).splits["train"]
    asked.clear()
    found = [picture.data for picture in split.read(tmp_path, split.listing)]
    assert found == [image["bytes"] for image in images]
    assert len(asked) == 1
    assert 1 <= asked[0] <= 30


def test_shards_that_are_missing_by_their_numbers_are_a_gap(shards: Path) -> None:
    assert all(split.gaps == () for split in find_source(shards).splits.values())
    (shards / "data" / "train-00000-of-00002.parquet").unlink()
    source = find_source(shards)
    assert source.splits["train"].gaps == (
        "1 of 2 shards missing: data/train-00000-of-00002.parquet",
    )
    assert source.splits["val"].gaps == ()
    (shards / "data" / "train-00001-of-00002.parquet").rename(
        shards / "data" / "train-00001-of-99999999999.parquet"
    )
    (gap,) = find_source(shards).splits["train"].gaps
    assert gap.startswith("99,999,999,998 of 99,999,999,999 shards missing: data/train-00000-of-")


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("0000.parquet", "train"),
        ("train.parquet", "train"),
        ("train/0000.parquet", "train"),
        ("validation/0000.parquet", "val"),
        ("test/train.parquet", "test"),
    ],
)
def test_a_shard_s_split_is_in_its_name_or_its_folder_s(
    tmp_path: Path, file: str, split: str
) -> None:
    write_shard(tmp_path / file, some_rows(3))
    assert list(find_source(tmp_path).splits) == [split]


def test_the_folder_around_converted_shards_is_told_what_to_give(tmp_path: Path) -> None:
    write_shard(tmp_path / "default" / "train" / "0000.parquet", some_rows(3))
    with pytest.raises(UserError, match=r"nothing but default, .* give .*default$"):
        find_source(tmp_path)
    assert list(find_source(tmp_path / "default").splits) == ["train"]
