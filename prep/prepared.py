"""A prepared split on disk: `OUT/<split>/`, its manifest `OUT/<split>.parquet`, its card.

The pictures are files of their own, `<class>/<file>`, or lie in one tar a class (`--layout tar`).
The manifest has one row per original, in label, then name order: rows of status "ok" are the
split's samples, rows of status "rejected" say why.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from prep.files import check_regular, whole_file
from prep.handover import Card, pixels_id, read_card
from prep.place import Place
from prep.program import UserError, why_not

SCHEMA = pa.schema(
    [
        ("class", pa.string()),
        ("label", pa.int32()),
        ("name", pa.string()),  # "<class>/<file>", relative to OUT/<split>
        ("shard", pa.string()),  # the tar in OUT/<split> that holds it; null: a file of its own
        ("offset", pa.int64()),  # of its bytes in the tar
        ("source", pa.string()),  # relative to the source's folder
        ("width", pa.int32()),  # of the original, pixels; 0 where it could not be read
        ("height", pa.int32()),
        ("kind", pa.string()),  # format, colour mode and EXIF orientation of the original
        ("bytes", pa.int64()),  # of the prepared JPEG
        ("crc32", pa.uint32()),  # of the prepared JPEG
        ("sha256", pa.binary(32)),  # of the prepared JPEG
        ("status", pa.string()),  # "ok" or "rejected"
        ("reason", pa.string()),  # of a rejection
    ]
)

ROW_GROUP = 8192  # rows; memory does not grow with their number

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """The samples of one prepared split, in sample order."""

    folder: Path
    card: Card
    names: pa.ChunkedArray  # [N] strings, "<class>/<file>"
    shards: pa.ChunkedArray  # [N] strings, null where the sample is a file of its own
    offsets: npt.NDArray[np.int64]  # [N] bytes, in the shard
    labels: npt.NDArray[np.int64]  # [N]
    sizes: npt.NDArray[np.int64]  # [N] bytes
    crc32: npt.NDArray[np.uint32]  # [N]
    digests: npt.NDArray[np.uint8]  # [N,32] sha256

    def __len__(self) -> int:
        return len(self.labels)

    def places(self, start: int, stop: int) -> list[Place]:
        """Where samples start..stop-1 lie."""
        columns = zip(
            self.names.slice(start, stop - start).to_pylist(),
            self.shards.slice(start, stop - start).to_pylist(),
            self.offsets[start:stop].tolist(),
            self.sizes[start:stop].tolist(),
            self.crc32[start:stop].tolist(),
            strict=True,
        )
        return [
            Place(self.folder, name, 0, None, crc32)
            if shard is None
            else Place(self.folder, shard, offset, size, crc32)
            for name, shard, offset, size, crc32 in columns
        ]

    def in_order(self, order: npt.NDArray[np.int64]) -> PreparedSplit:
        """The same samples in another order; order: [N], which one comes first, second, ..."""
        return dataclasses.replace(
            self,
            names=self.names.take(pa.array(order)),
            shards=self.shards.take(pa.array(order)),
            offsets=self.offsets[order],
            labels=self.labels[order],
            sizes=self.sizes[order],
            crc32=self.crc32[order],
            digests=self.digests[order],
        )


def split_card_path(folder: Path) -> Path:
    folder = _named(folder)
    return folder.with_name(folder.name + ".json")


def manifest_path(folder: Path) -> Path:
    folder = _named(folder)
    return folder.with_name(folder.name + ".parquet")


def split_stats_path(folder: Path) -> Path:
    """Where the training split's statistics lie, for any split of the same prepared set."""
    return _named(folder).with_name("train.stats.npz")


def _manifest(folder: Path) -> Path:
    """The manifest of a split, to be read. Raises UserError when it is missing or is no file."""
    path = manifest_path(folder)
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; prepare the data again") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; remove it and prepare the data again"
        ) from error
    return path


def _named(folder: Path) -> Path:
    """`folder` by its name: "." and ".." have none to put an ending to."""
    return folder.resolve() if folder.name in ("", "..") else folder


def partial_folder(folder: Path) -> Path:
    """Where a split's pictures are until all are there."""
    return folder.with_name(folder.name + ".partial")


def write_manifest(rows: Iterable[pa.Table], plan: dict[str, Any], path: Path) -> None:
    """Write tables of SCHEMA, each as a row group, and what the split was asked to be (prep.plan).

    The same tables and plan give the same bytes.
    """
    schema = SCHEMA.with_metadata({"plan": json.dumps(plan)})
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for part in rows:
            writer.write_table(part.cast(schema))


def digests(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    """uint8 [N,32] from a column of sha256."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if array.null_count:
        raise ValueError(f"{array.null_count} samples have no sha256")
    raw = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, 32)
    return raw[array.offset : array.offset + len(array)]


def plan_of(folder: Path) -> dict[str, Any]:
    """What a finished split was asked to be. Raises UserError when its manifest does not say."""
    path = _manifest(folder)
    try:
        plan: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[b"plan"])
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove what is called {folder.name} there and prepare "
            "it again"
        ) from error
    return plan


def open_prepared(folder: Path) -> PreparedSplit:
    """Open OUT/<split>. Raises UserError when it is no prepared split."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} {why_not(folder, 'a folder')}; give OUT/train or OUT/val of `prep resize`"
        )
    if not split_card_path(folder).exists():
        if split_card_path(folder / "train").exists():
            raise UserError(f"{folder} is a whole prepared set; give {folder / 'train'}")
        raise UserError(
            f"{folder} is no split that `prep resize` made ({split_card_path(folder)} is missing); "
            "give OUT/train or OUT/val, after `prep resize SRC OUT`"
        )
    card = read_card(split_card_path(folder))
    path = _manifest(folder)
    try:
        table = pq.read_table(
            path,
            columns=["name", "shard", "offset", "label", "bytes", "crc32", "sha256"],
            filters=[("status", "=", "ok")],
        )
        sha256 = digests(table["sha256"])
        labels = table["label"].to_numpy().astype(np.int64)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({error}); run `prep resize` again") from error
    if len(table) != card.samples:
        raise UserError(
            f"{path} has {len(table)} samples, the card beside it says {card.samples}; "
            "run `prep resize` again"
        )
    if pixels_id(labels, sha256) != card.pixels_id:
        raise UserError(
            f"{path} names other pictures or labels than the card beside it (pixels_id differs); "
            "run `prep resize` again"
        )
    return PreparedSplit(
        folder=folder,
        card=card,
        names=table["name"],
        shards=table["shard"],
        offsets=table["offset"].to_numpy(),
        labels=labels,
        sizes=table["bytes"].to_numpy(),
        crc32=table["crc32"].to_numpy(),
        digests=sha256,
    )


def write_rejects(rejected: dict[str, list[Row]], path: Path) -> None:
    """Write the rejected manifest rows of each split as lines of JSON."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as out:
        for split, rows in rejected.items():
            for row in rows:
                entry = {"split": split, "path": row["source"], "reason": row["reason"]}
                out.write(json.dumps(entry) + "\n")


def originals(folder: Path) -> int:
    """How many pictures a prepared split was made of, the rejected ones too."""
    return int(pq.read_metadata(_manifest(folder)).num_rows)


def rejected_rows(folder: Path) -> Iterator[Row]:
    """The rejected originals of a prepared split: source and reason."""
    table = pq.read_table(
        _manifest(folder),
        columns=["source", "reason"],
        filters=[("status", "=", "rejected")],
    )
    yield from table.to_pylist()
