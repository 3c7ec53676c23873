"""Parquet shards as Hugging Face's datasets have them: a column of images, a column of labels.

    SRC[/data]/train-00000-of-00294.parquet, validation-..., test-...

An image is a struct of `bytes` and `path`, or the bytes alone. Class names come from the features
that the datasets library writes into the schema's metadata (a ClassLabel's names, label order).
imagenet-1k's test split has label -1 throughout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prep.handover import UNLABELLED
from prep.images import MAX_BYTES, too_many_bytes
from prep.program import UserError
from prep.sources.listing import (
    SPLITS,
    UNIT_SIZE,
    Listing,
    ListingBuilder,
    Picture,
    Source,
    Split,
)

SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "test": "test"}
ROWS_AT_ONCE = 64  # 7 MB of ImageNet
IMAGE_COLUMNS = ("image", "img", "jpg")
LABEL_COLUMNS = ("label", "cls", "fine_label")
_FILE = re.compile(r"(train|validation|val|test)\b.*\.parquet", re.ASCII)


def find_parquet(root: Path) -> Source | None:
    """The shards in `root` or in its folder `data`; None when there are none."""
    files: dict[str, list[str]] = {}
    for folder in (root, root / "data"):
        for path in sorted(folder.glob("*.parquet")):
            match = _FILE.fullmatch(path.name)
            if match and not path.with_suffix(".json").exists():  # else a prepared set's manifest
                split = SPLIT_NAMES[match[1]]
                files.setdefault(split, []).append(str(path.relative_to(root)))
    if not files:
        return None
    splits = {split: _list(root, tuple(files[split])) for split in SPLITS if split in files}
    count = max(int(split.listing.labels.max(initial=-1)) for split in splits.values()) + 1
    names = _class_names(root / next(iter(files.values()))[0])
    if names and len(names) < count:
        raise UserError(
            f"{root}: the schema names {len(names)} classes, but a label is {count - 1}; the "
            "shards are not of one data set"
        )
    names = names or tuple(f"{label:04d}" for label in range(count))
    return Source(root, "Hugging Face parquet shards", names, names, splits)


def _list(root: Path, files: tuple[str, ...]) -> Split:
    """Every row, in units whose bounds no row group crosses."""
    builder = ListingBuilder(files)
    total, bounds = 0, [0]
    for container, file in enumerate(files):
        with _open(root / file) as table:
            image, label = _columns(root / file, table.schema_arrow)
            has_path = pa.types.is_struct(table.schema_arrow.field(image).type)
            row = 0
            for group in range(table.num_row_groups):
                wanted = [label, f"{image}.path"] if has_path else [label]
                rows = table.read_row_group(group, columns=wanted)
                paths = rows[image].to_pylist() if has_path else [None] * len(rows)
                for value, path in zip(rows[label].to_pylist(), paths, strict=True):
                    name = (path or {}).get("path") or f"{row:08d}"
                    builder.add(f"{file}/{name}", _label(root / file, value), 0, container, row)
                    row += 1
                total += len(rows)
                if total - bounds[-1] >= UNIT_SIZE:
                    bounds.append(total)
    if total > bounds[-1]:
        bounds.append(total)
    return Split(builder.build(), read_rows, bounds=np.array(bounds))


def _label(path: Path, value: object) -> int:
    if not isinstance(value, int) or not UNLABELLED <= value < 1 << 20:
        raise UserError(f"{path}: a label is {value!r}; expected a class's number")
    return value


def read_rows(root: Path, listing: Listing) -> Iterator[Picture]:
    """The pictures of some rows, a file and a row group at a time, in the listing's order."""
    places = listing.places
    edges = np.flatnonzero(np.diff(places["container"], prepend=-1))
    for start, stop in zip(edges, np.append(edges[1:], len(listing)), strict=True):
        path = root / listing.containers[int(places["container"][start])]
        wanted = places["position"][start:stop].tolist()
        images = _images(path, wanted)
        for at in range(int(start), int(stop)):
            name, label = listing.names[at], int(places["label"][at])
            data = next(images)
            if data is None:
                yield Picture(name, label, None, "the row holds no image")
            elif len(data) > MAX_BYTES:
                yield Picture(name, label, None, too_many_bytes(len(data)))
            else:
                yield Picture(name, label, data)


def _images(path: Path, wanted: list[int]) -> Iterator[bytes | None]:
    """The image bytes of the rows `wanted`, which rise."""
    with _open(path) as table:
        image, _ = _columns(path, table.schema_arrow)
        column = (
            f"{image}.bytes" if pa.types.is_struct(table.schema_arrow.field(image).type) else image
        )
        sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, wanted, side="right")
        for group in np.unique(groups).tolist():
            first = int(ends[group] - sizes[group])
            rows: Iterator[int] = iter(
                [row - first for row, g in zip(wanted, groups, strict=True) if g == group]
            )
            row: int | None = next(rows)
            at = 0
            for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                while row is not None and row < at + len(batch):
                    value = batch.column(0)[row - at].as_py()
                    yield value.get("bytes") if isinstance(value, dict) else value
                    row = next(rows, None)
                at += len(batch)


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read as parquet ({str(error).splitlines()[0]}); get it again"
        ) from error


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str]:
    """The names of the image and the label column."""
    images = [f.name for f in schema if f.name in IMAGE_COLUMNS and _is_image(f.type)]
    labels = [f.name for f in schema if f.name in LABEL_COLUMNS and pa.types.is_integer(f.type)]
    if not images or not labels:
        raise UserError(
            f"{path} has columns {', '.join(schema.names)}; expected image (bytes and path) and "
            "label (a class's number)"
        )
    return images[0], labels[0]


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(path: Path) -> tuple[str, ...]:
    """The label's names by the schema's metadata; empty when it has none."""
    with _open(path) as table:
        schema = table.schema_arrow
        _, label = _columns(path, schema)
        try:
            features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
            names = features[label]["names"]
        except (KeyError, TypeError, ValueError):
            return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
