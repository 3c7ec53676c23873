"""The end of stage one: from the journal of a split's units to the prepared split.

The units' rows are put in label, then name order, whatever order the source had; with layout "tar"
the pictures are sorted into a tar a class. Then the folder gets its name, the manifest and the
card follow; the card says that the split is whole.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prep import handover, prepared
from prep.claim import Claim
from prep.files import sync_folder
from prep.handover import UNLABELLED, Card, ClassEntry
from prep.plan import Options, card_fields, plan, tool_versions
from prep.resize_unit import rows_file
from prep.shards import Shard, write_shard
from prep.sources.listing import Source
from prep.units import run_units

REPEATED = ["class", "shard", "kind", "status", "reason"]  # texts that are few
UNIT = "unit"  # the column, beside those of the manifest, that holds a row's unit


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What became of one split."""

    split: str
    samples: int
    rejected: int
    already_done: bool  # the whole split, by an earlier run of the same command
    done_now: int  # pictures of this run; a killed one may have done others


@dataclasses.dataclass(frozen=True)
class Journal:
    """The rows of a split's units, in `folder`."""

    folder: Path
    units: int
    done_now: int = 0  # pictures that this run did

    def file(self, number: int) -> Path:
        return rows_file(self.folder, number)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows of each unit, in unit order."""
        return (pq.read_table(self.file(n), columns=columns) for n in range(self.units))

    def rejected(self) -> list[prepared.Row]:
        """Source and reason of every rejected picture."""
        found: list[prepared.Row] = []
        for table in self.tables(["source", "status", "reason"]):
            found += table.filter(pc.field("status") == "rejected").to_pylist()
        return found

    def counts(self, classes: int) -> npt.NDArray[np.int64]:
        """Pictures of each class [classes], the rejected ones too."""
        total = np.zeros(classes, np.int64)
        for table in self.tables(["label"]):
            labels = table["label"].to_numpy()
            total += np.bincount(labels[labels != UNLABELLED], minlength=classes)
        return total

    def total(self) -> int:
        return sum(len(table) for table in self.tables(["label"]))

    def sorted_rows(self) -> SortedRows:
        """Every row, with its unit, in label, then name order."""
        tables = (
            pq.read_table(self.file(number), read_dictionary=REPEATED).append_column(
                UNIT, pa.array(np.full(pq.read_metadata(self.file(number)).num_rows, number, "i4"))
            )
            for number in range(self.units)
        )
        table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        pa.default_memory_pool().release_unused()  # 290 MB of 1,281,167 rows' pieces
        order = pc.sort_indices(table, [("label", "ascending"), ("name", "ascending")])
        return SortedRows(table, order.to_numpy())


@dataclasses.dataclass(frozen=True)
class SortedRows:
    """The rows of a split. Copies are made of some rows or columns at a time: all are 250 MB."""

    table: pa.Table  # of prepared.SCHEMA and UNIT, in unit order, REPEATED as dictionaries
    order: npt.NDArray[np.int64]  # [N] places in the table

    def __len__(self) -> int:
        return len(self.order)

    def column(self, name: str) -> pa.Array:
        return self.table[name].take(pa.array(self.order)).combine_chunks()

    def take(self, places: npt.NDArray[np.int64]) -> pa.Table:
        return self.table.take(pa.array(self.order[places]))


def already_done(folder: Path, rejected: int) -> SplitSummary:
    samples = handover.read_card(prepared.split_card_path(folder)).samples
    return SplitSummary(folder.name, samples, rejected, already_done=True, done_now=0)


def finish(
    source: Source,
    folder: Path,
    journal: Journal,
    options: Options,
    claim: Claim,
) -> SplitSummary:
    """Name the folder, write manifest and card."""
    split = folder.name
    rows = journal.sorted_rows()
    partial = prepared.partial_folder(folder)
    taken = pc.equal(rows.column("status"), "ok").to_numpy(zero_copy_only=False)
    labels = rows.column("label").to_numpy()
    offsets = np.zeros(len(rows), np.int64)
    if options.layout == "tar":
        chosen, place = np.flatnonzero(taken), folder if folder.exists() else partial
        shards = _shards(rows, chosen, labels, place, journal.folder, claim)
        for label, found in run_units(write_shard, shards, options.jobs):
            offsets[chosen[labels[chosen] == label]] = found
    if not folder.exists():
        partial.replace(folder)
        sync_folder(folder.parent)
    digests = prepared.digests(rows.column("sha256").filter(pa.array(taken)))
    labels = labels[taken].astype(np.int64)
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(source.classes))
    card = Card(
        split=split,
        samples=len(labels),
        classes=tuple(
            ClassEntry(wnid, class_name, int(count))
            for wnid, class_name, count in zip(source.classes, source.names, counts, strict=True)
        ),
        mode="jpg",
        sha256=None,
        pixels_id=handover.pixels_id(labels, digests),
        tools=tool_versions(options.settings.backend),
        **card_fields(source, split, options.settings),
    )
    manifest = _manifest_rows(rows, offsets, options.layout)
    asked = plan(source, split, options)
    prepared.write_manifest(manifest, asked, prepared.manifest_path(folder))
    handover.write_card(card, prepared.split_card_path(folder))
    rejected = len(rows) - len(labels)
    return SplitSummary(split, len(labels), rejected, already_done=False, done_now=journal.done_now)


def _manifest_rows(
    rows: SortedRows, offsets: npt.NDArray[np.int64], layout: str
) -> Iterator[pa.Table]:
    """The manifest's rows, some at a time; of layout "tar" with each sample's place."""
    for start in range(0, max(len(rows), 1), prepared.ROW_GROUP):
        places = np.arange(start, min(start + prepared.ROW_GROUP, len(rows)))
        part = rows.take(places).select(prepared.SCHEMA.names).cast(prepared.SCHEMA)
        if layout == "tar":
            names = pc.binary_join_element_wise(part["class"], "tar", ".")
            shards = pc.if_else(pc.equal(part["status"], "ok"), names, None).cast(pa.string())
            columns = {"shard": shards, "offset": pa.array(offsets[places])}
            for name, column in columns.items():
                part = part.set_column(part.schema.get_field_index(name), name, column)
        yield part


def _shards(
    rows: SortedRows,
    taken: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    folder: Path,
    work: Path,
    claim: Claim,
) -> Iterator[Shard]:
    """The tar of each class, of the rows `taken`."""
    starts = np.flatnonzero(np.diff(labels[taken], prepend=UNLABELLED - 1))
    for start, stop in itertools.pairwise([*starts.tolist(), len(taken)]):
        part = rows.take(taken[start:stop])
        yield Shard(
            path=folder / f"{part['class'][0].as_py()}.tar",
            label=part["label"][0].as_py(),
            names=part["name"].to_pylist(),
            parts=part[UNIT].to_pylist(),
            offsets=part["offset"].to_pylist(),
            sizes=part["bytes"].to_pylist(),
            work=work,
            claim=claim,
        )
