"""A parquet shard: which columns hold what, and the images of some of its rows.

A row group is read from its start, some rows at a time, and only as far as is needed: Arrow knows
no way to begin in its middle. Of one group of 10,000 pictures, 1.1 GB in pages of 112 MB, the last
eighth took 1.0 s of a core, 0.1 s for each 1,000 rows passed over, and 0.5 GB of memory; with
Arrow's defaults it was 1.3 GB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from prep.images import MAX_BYTES, too_many_bytes
from prep.program import UserError, first_line
from prep.sources.listing import Listing, Picture

IMAGES_AT_ONCE = 64  # 7 MB of ImageNet, at most
BYTES_AT_ONCE = 1 << 26  # of images of a row group's mean size
READ_AHEAD = 1 << 20  # bytes; without it Arrow reads a row group whole
IMAGE_COLUMNS = ("image", "img", "jpg")
LABEL_COLUMNS = ("label", "cls", "fine_label")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A pyarrow ParquetFile. Raises UserError, in the block too, when it cannot be read."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_AHEAD) as table:
            yield table
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as parquet ({first_line(error)}); get it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where a table has what; a field of a struct is `<column>.<field>`."""

    label: str
    image: str  # the column
    data: str  # the image's bytes: the column, or a field of it
    path: str | None  # the image's name, where there is one


def columns_of(path: Path, schema: pa.Schema) -> Columns:
    labels = [f.name for f in schema if f.name in LABEL_COLUMNS and pa.types.is_integer(f.type)]
    images = [f for f in schema if f.name in IMAGE_COLUMNS and _is_image(f.type)]
    if not images or not labels:
        raise UserError(
            f"{path} has columns {', '.join(schema.names)}; expected image (bytes and path) and "
            "label (a class's number)"
        )
    name = images[0].name
    if pa.types.is_struct(images[0].type):
        return Columns(labels[0], name, f"{name}.bytes", f"{name}.path")
    return Columns(labels[0], name, name, None)


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_binary(kind)
    fields = {field.name: field.type for field in kind}
    return "path" in fields and "bytes" in fields and _is_binary(fields["bytes"])


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def image_values(batch: pa.RecordBatch, columns: Columns) -> pa.Array:
    """The image column; of a struct, the one field of it that was read."""
    column = batch.column(columns.image)
    return column.flatten()[0] if pa.types.is_struct(column.type) else column


def group_sizes(table: Any) -> list[int]:
    return [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]


def read_rows(root: Path, listing: Listing) -> Iterator[Picture]:
    """The pictures of some rows, which rise within each file.

    Raises UserError when a file is damaged or has fewer rows than were listed.
    """
    containers = listing.places["container"]
    edges = np.flatnonzero(np.diff(containers, prepend=-1, append=-1))
    for start, stop in itertools.pairwise(edges.tolist()):
        of_file = listing.part(start, stop)
        images = _images(root / listing.containers[containers[start]], of_file.places["position"])
        for name, label, data in zip(of_file.names, of_file.labels.tolist(), images, strict=True):
            yield _picture(name, label, data)


def _picture(name: str, label: int, data: bytes | None) -> Picture:
    if data is None:
        return Picture(name, label, None, "the row holds no image")
    if len(data) > MAX_BYTES:
        return Picture(name, label, None, too_many_bytes(len(data)))
    return Picture(name, label, data)


def _images(path: Path, wanted: npt.NDArray[np.int64]) -> Iterator[bytes | None]:
    """The image of each row `wanted` of a file; row groups that hold none are not read."""
    with opened(path) as table:
        columns, sizes = columns_of(path, table.schema_arrow), group_sizes(table)
        if wanted[-1] >= sum(sizes):
            raise UserError(
                f"{path} has {sum(sizes)} rows, and had more when it was listed; get it again"
            )
        first = 0
        for group, rows in enumerate(sizes):
            inside = wanted[(wanted >= first) & (wanted < first + rows)]
            if len(inside):
                yield from _images_of_group(table, group, columns, inside - first)
            first += rows


def _images_of_group(
    table: Any, group: int, columns: Columns, wanted: npt.NDArray[np.int64]
) -> Iterator[bytes | None]:
    """The image of each row `wanted` of one row group, counted from the group's first.

    Raises ArrowInvalid when the group is shorter than it says.
    """
    about = table.metadata.row_group(group)
    mean_bytes = max(about.total_byte_size // max(about.num_rows, 1), 1)
    at_once = min(max(BYTES_AT_ONCE // mean_bytes, 1), IMAGES_AT_ONCE)
    first = 0
    for batch in table.iter_batches(at_once, row_groups=[group], columns=[columns.data]):
        images = image_values(batch, columns)
        for row in wanted[(wanted >= first) & (wanted < first + len(batch))].tolist():
            yield images[row - first].as_py()
        first += len(batch)
        if first > wanted[-1]:
            return
    raise pa.ArrowInvalid(f"row group {group} ends after {first} rows")
