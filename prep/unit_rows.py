"""The rows of a split's units: a file a unit, whose presence says that the unit is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prep import prepared
from prep.files import whole_file
from prep.handover import UNLABELLED

REPEATED = ["class", "shard", "kind", "status", "reason"]  # texts that are few
UNIT = "unit"  # the column, beside those of the manifest, that holds a row's unit


def rows_file(work: Path, number: int) -> Path:
    """The rows of a unit; when it is there, so are the pictures."""
    return work / f"{number:06d}.parquet"


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

    def write(self, number: int, rows: pa.Table) -> None:
        """Write the rows of a unit that is done."""
        with whole_file(self.file(number)) as partial:
            pq.write_table(rows, partial)

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
