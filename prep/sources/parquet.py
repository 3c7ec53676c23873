"""Parquet shards as Hugging Face's datasets have them: a column of images, a column of labels.

    SRC[/data]/train-00000-of-00294.parquet, validation-..., test-...
    SRC/train/0000.parquet, SRC/validation/...      (as the hub converts data sets)

The split is the one that the file's name holds, else its folder's; without any it is train.
An image is a struct of `bytes` and `path`, or the bytes alone. Class names come from the features
that the datasets library writes into the schema's metadata (a ClassLabel's names, label order).
imagenet-1k's test split has label -1 throughout.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.handover import UNLABELLED
from prep.program import UserError
from prep.progress import SOON, progress
from prep.sources.listing import SPLITS, UNIT_SIZE, ListingBuilder, Source, Split
from prep.sources.numbers import missing_shards
from prep.sources.parquet_rows import (
    Columns,
    columns_of,
    group_sizes,
    image_values,
    opened,
    read_rows,
)
from prep.sources.walk import SPLIT_NAMES, split_of

FOLDERS = ("", "data", *SPLIT_NAMES)  # where shards may lie
LABELS_AT_ONCE = 1 << 14  # with their pictures' names, some MB
UNITS_A_GROUP = 8  # at most: together they read a row group 4.5 times, each from its start


def find_parquet(root: Path) -> Source | None:
    """The shards in FOLDERS of `root`; None when there are none.

    Shards that are missing by the others' numbers are a gap of their split.
    Raises UserError when one is damaged, has no images or labels, or names other classes.
    """
    files: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.parquet")):
            if path.is_file() and not path.with_suffix(".json").exists():  # of a prepared set
                name = str(path.relative_to(root))
                files.setdefault(split_of(name), []).append(name)
    if not files:
        return None
    splits = {split: _list(root, split, tuple(files[split])) for split in SPLITS if split in files}
    count = max(int(split.listing.labels.max(initial=-1)) for split in splits.values()) + 1
    names = _class_names([root / file for split in splits for file in files[split]])
    if names and len(names) < count:
        raise UserError(
            f"{root}: the schema names {len(names)} classes, but a label is {count - 1}; the "
            "shards are not of one data set"
        )
    names = names or tuple(f"{label:04d}" for label in range(count))
    return Source(root, "Hugging Face parquet shards", names, names, splits)


def _list(root: Path, split: str, files: tuple[str, ...]) -> Split:
    """Every row of one split."""
    builder = ListingBuilder(files)
    groups: list[int] = []
    contents = []
    with progress(f"list {split}", None, after=SOON) as report:
        for container, file in enumerate(files):
            with opened(root / file) as table:
                columns = columns_of(root / file, table.schema_arrow)
                sizes, rows = group_sizes(table), 0
                for label, path in _labels_and_paths(table, columns):
                    name = path or f"{rows:08d}"
                    builder.add(f"{file}/{name}", _label(root / file, label), 0, container, rows)
                    rows += 1
            if rows != sum(sizes):
                raise UserError(
                    f"{root / file} has {rows} rows, its footer says {sum(sizes)}; get it again"
                )
            groups += sizes
            contents.append(_contents(root / file))
            report(rows)
    return Split(
        builder.build(),
        read_rows,
        in_order=True,
        bounds=_bounds(groups),
        contents=tuple(contents),
        gaps=tuple(missing_shards(files)),
    )


def _labels_and_paths(table: Any, columns: Columns) -> Iterator[tuple[object, object]]:
    wanted = [columns.label, *([columns.path] if columns.path else [])]
    for batch in table.iter_batches(LABELS_AT_ONCE, columns=wanted):
        labels = batch.column(columns.label).to_pylist()
        if columns.path:
            yield from zip(labels, image_values(batch, columns).to_pylist(), strict=True)
        else:
            yield from ((label, None) for label in labels)


def _label(path: Path, value: object) -> int:
    if not isinstance(value, int) or not UNLABELLED <= value < 1 << 20:
        raise UserError(f"{path}: a label is {value!r}; expected a class's number")
    return value


def _bounds(groups: Sequence[int]) -> npt.NDArray[np.int64]:
    """Units' bounds [U+1] from the rows of each group: small groups together, large ones cut."""
    bounds, first = [0], 0
    for rows in groups:
        parts = min(max(rows // UNIT_SIZE, 1), UNITS_A_GROUP)
        for part in range(1, parts + 1):
            end = first + rows * part // parts
            if end - bounds[-1] >= UNIT_SIZE:
                bounds.append(end)
        first += rows
    if first > bounds[-1]:
        bounds.append(first)
    return np.array(bounds)


def _contents(path: Path) -> str:
    """Size and sha256 of the footer, which has the sizes and statistics of all that is inside."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(size - 8)  # the footer's length and the mark PAR1
        file.seek(max(size - 8 - int.from_bytes(file.read(4), "little"), 0))
        return f"{size} {hashlib.sha256(file.read()).hexdigest()}"


def _class_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The label's names by the schemas' metadata; empty when none has any."""
    named = {path: names for path in paths if (names := _names_in(path))}
    first = next(iter(named), None)
    for path, names in named.items():
        if first is not None and names != named[first]:
            pairs = enumerate(itertools.zip_longest(named[first], names))
            label, pair = next((label, pair) for label, pair in pairs if pair[0] != pair[1])
            raise UserError(
                f"{first} and {path} name class {label} differently ({pair[0]!r}, {pair[1]!r}); "
                "the shards are not of one data set"
            )
    return named[first] if first is not None else ()


def _names_in(path: Path) -> tuple[str, ...]:
    with opened(path) as table:
        schema = table.schema_arrow
        label = columns_of(path, schema).label
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
