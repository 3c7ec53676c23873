"""FFCV's file format, version 2, as far as this project uses it: fields `image` and `label`.

    header | two field descriptors | one metadata row a sample | pages of sample bytes | table

A sample's bytes lie inside one page. The table (sample, pointer, size) ends the file. The layout
follows FFCV 1.0.2 (ffcv/types.py, ffcv/writer.py); a test holds these dtypes against FFCV's own,
so that writing needs no FFCV, and with it no torch, in a worker.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.program import UserError, no_beton

VERSION = 2
PAGE_SIZE = 1 << 23  # bytes; FFCV's default, four huge pages
MODES = {"jpg": 0, "raw": 1}
INT_FIELD, IMAGE_FIELD = 1, 2  # FFCV's type ids

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype(
    [("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True
)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
SAMPLE = np.dtype([("f0", IMAGE), ("f1", "<i8")], align=True)  # image, label
TABLE = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
METADATA_START = HEADER.itemsize + 2 * FIELD.itemsize


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything lies; pointers and sizes in bytes, in sample order."""

    ptr: npt.NDArray[np.uint64]  # [N]
    size: npt.NDArray[np.uint64]  # [N]
    data_start: int
    table_start: int
    file_size: int


@dataclasses.dataclass(frozen=True)
class Page:
    """Samples that follow one another from a page's start; zeros fill its rest."""

    start: int  # bytes from the file's start
    first: int  # sample
    bounds: list[int]  # [n+1] bytes from the page's start: between them, the n samples

    @property
    def samples(self) -> range:
        return range(self.first, self.first + len(self.bounds) - 1)

    def records(self, page: memoryview) -> list[memoryview]:
        """The bytes of each sample."""
        return [page[start:stop] for start, stop in itertools.pairwise(self.bounds)]


@dataclasses.dataclass(frozen=True)
class Beton:
    """An opened beton: its structure has been checked, its samples have not."""

    path: Path
    layout: Layout
    labels: npt.NDArray[np.int64]  # [N]
    modes: npt.NDArray[np.uint8]  # [N]
    widths: npt.NDArray[np.uint16]  # [N] pixels
    heights: npt.NDArray[np.uint16]  # [N] pixels

    def __len__(self) -> int:
        return len(self.labels)


def plan_layout(sizes: npt.NDArray[np.uint64]) -> Layout:
    """Place samples of these sizes one after the other, none across the end of a page.

    Raises UserError when a sample is larger than a page.
    """
    count = len(sizes)
    if count and int(sizes.max()) > PAGE_SIZE:
        sample = int(sizes.argmax())
        raise UserError(
            f"sample {sample} has {int(sizes.max())} bytes, a page holds {PAGE_SIZE}; prepare "
            "with a smaller --size or --quality"
        )
    start = data_start(count)
    ends = np.cumsum(sizes, dtype=np.uint64)  # of each sample, were there no page ends
    ptr = ends - sizes
    page, first = start, 0
    while first < count:
        before = ptr[first]  # bytes of the samples on earlier pages
        stop = int(np.searchsorted(ends, before + np.uint64(PAGE_SIZE), "right"))
        ptr[first:stop] += np.uint64(page) - before
        page, first = page + PAGE_SIZE, stop
    return Layout(ptr, sizes, start, page, page + count * TABLE.itemsize)


def data_start(count: int) -> int:
    """Where the first page of a beton of `count` samples begins, in bytes."""
    return _next_page(METADATA_START + count * SAMPLE.itemsize)


def pages(layout: Layout) -> Iterator[Page]:
    """The pages of a planned layout, each made when it is asked for."""
    starts = np.arange(layout.data_start, layout.table_start + 1, PAGE_SIZE, dtype=np.uint64)
    firsts = np.searchsorted(layout.ptr, starts).tolist()  # one a page: 5,000 of 1,281,167 JPEGs
    for start, (first, stop) in zip(starts.tolist(), itertools.pairwise(firsts), strict=False):
        ends = layout.ptr[first:stop] + layout.size[first:stop] - np.uint64(start)
        yield Page(start, first, [0, *ends.tolist()])


def head(layout: Layout, labels: npt.NDArray[np.int64], side: int, mode: str) -> bytes:
    """Everything before the first sample: header, fields, metadata, padding."""
    header = np.zeros((), HEADER)
    header["version"] = VERSION
    header["num_fields"] = 2
    header["page_size"] = PAGE_SIZE
    header["num_samples"] = len(labels)
    header["alloc_table_ptr"] = layout.table_start
    fields = np.zeros(2, FIELD)
    for field, name, type_id in zip(
        fields, (b"image", b"label"), (IMAGE_FIELD, INT_FIELD), strict=True
    ):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name, np.uint8)
    samples = np.zeros(len(labels), SAMPLE)
    samples["f0"]["mode"] = MODES[mode]
    samples["f0"]["width"] = samples["f0"]["height"] = side
    samples["f0"]["data_ptr"] = layout.ptr
    samples["f1"] = labels
    text = header.tobytes() + fields.tobytes() + samples.tobytes()
    return text.ljust(layout.data_start, b"\0")


def table(layout: Layout) -> bytes:
    """The allocation table, in sample order."""
    rows = np.zeros(len(layout.ptr), TABLE)
    rows["sample_id"] = np.arange(len(layout.ptr))
    rows["ptr"] = layout.ptr
    rows["size"] = layout.size
    return rows.tobytes()


def open_beton(path: Path) -> Beton:
    """Read and check a beton's structure.

    Raises UserError when it is not a beton of version 2 with fields image and label, is cut
    short, or has a record outside the file.
    """
    if not path.is_file():
        raise UserError(no_beton(path))
    size = path.stat().st_size
    header = _read(path, HEADER, 1, 0, size, "its header")[0]
    if header["num_fields"] != 2:
        raise UserError(f"{path} is not a beton of this project: it has no fields image and label")
    if header["version"] != VERSION:
        raise UserError(
            f"{path} has beton version {header['version']}, this program reads {VERSION}; write it "
            "again with `prep write-beton`"
        )
    fields = _read(path, FIELD, 2, HEADER.itemsize, size, "its fields")
    names = [bytes(name).rstrip(b"\0") for name in fields["name"]]
    types = fields["type_id"].tolist()
    if names != [b"image", b"label"] or types != [IMAGE_FIELD, INT_FIELD]:
        raise UserError(f"{path} has fields {names} of types {types}, expected image and label")
    count = int(header["num_samples"])
    samples = _read(path, SAMPLE, count, METADATA_START, size, "its metadata")
    table_start = int(header["alloc_table_ptr"])
    rows = _read(path, TABLE, count, table_start, size, "its allocation table")
    layout = Layout(
        ptr=samples["f0"]["data_ptr"].copy(),
        size=np.zeros(count, np.uint64),
        data_start=data_start(count),
        table_start=table_start,
        file_size=table_start + count * TABLE.itemsize,
    )
    _check_table(path, rows, layout, size)
    layout.size[rows["sample_id"].astype(np.int64)] = rows["size"]
    return Beton(
        path=path,
        layout=layout,
        labels=samples["f1"].copy(),
        modes=samples["f0"]["mode"].copy(),
        widths=samples["f0"]["width"].copy(),
        heights=samples["f0"]["height"].copy(),
    )


def _check_table(path: Path, rows: npt.NDArray[Any], layout: Layout, size: int) -> None:
    count = len(layout.ptr)
    if size != layout.file_size:
        raise UserError(
            f"{path} has {size} bytes, its header says {layout.file_size}; it is cut short or "
            "damaged: write it again"
        )
    if not np.array_equal(np.sort(rows["sample_id"]), np.arange(count, dtype=np.uint64)):
        raise UserError(f"{path}: its allocation table does not name every sample once")
    ordered = rows[np.argsort(rows["sample_id"])]
    if not np.array_equal(ordered["ptr"], layout.ptr):
        sample = int(np.flatnonzero(ordered["ptr"] != layout.ptr)[0])
        raise UserError(
            f"{path}: sample {sample} lies at {layout.ptr[sample]} by its metadata and at "
            f"{ordered['ptr'][sample]} by the allocation table; write it again"
        )
    table_start = np.uint64(layout.table_start)
    outside = (ordered["ptr"] < layout.data_start) | (ordered["ptr"] > table_start)
    outside |= ordered["size"] > table_start - np.minimum(ordered["ptr"], table_start)
    if outside.any():
        sample = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"{path}: sample {sample} lies outside the file's pages by the allocation table "
            f"(pointer {ordered['ptr'][sample]}, size {ordered['size'][sample]}); write it again"
        )


def _read(
    path: Path, dtype: np.dtype[Any], count: int, offset: int, size: int, what: str
) -> npt.NDArray[Any]:
    if offset + count * dtype.itemsize > size:
        raise UserError(
            f"{path} has {size} bytes, too few for {what}; it is cut short or not a beton: write "
            "it with `prep write-beton`"
        )
    return np.fromfile(path, dtype=dtype, count=count, offset=offset)


def _next_page(position: int) -> int:
    return -(-position // PAGE_SIZE) * PAGE_SIZE
