"""Opens a beton for training or evaluation: its card, and the checks that FFCV does not make.

FFCV reads a damaged file as stale pixels or waits for ever, so the structure is compared with
what prep wrote beside it before FFCV sees the file. No data is hashed here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prep import handover
from prep.handover import Card, Records, Statistics
from prep.program import UserError, no_beton

if TYPE_CHECKING:
    from ffcv.reader import Reader

FFCV_VERSION = 2  # of the file format
STORED_AS = {"jpg": 0, "raw": 1}  # the card's mode, and FFCV's number for it in every sample


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A beton that is whole as far as its structure goes."""

    path: Path
    card: Card
    records: Records
    labels: npt.NDArray[np.int64]  # [N]
    page_size: int  # bytes; a sample lies within a page

    def __len__(self) -> int:
        return self.card.samples

    @functools.cached_property  # every checkpoint has it
    def labels_sha256(self) -> str:
        """Of the labels in the file's order: another order of the same samples has another."""
        return hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()

    @property
    def pages(self) -> npt.NDArray[np.int64]:
        """[N], the page of the file that each sample is in."""
        return (self.records.ptr // np.uint64(self.page_size)).astype(np.int64)


def open_dataset(path: Path) -> Dataset:
    """Raises UserError when the beton or its companions are missing, cut short or of other make."""
    if not path.is_file():
        raise UserError(no_beton(path))
    _check_header(path)
    card = handover.read_beton_card(path)
    records = handover.read_records_of(path, card)
    if len(records.ptr) != card.samples or card.samples == 0:
        raise UserError(
            f"{path}: the card names {card.samples} samples, records.npz {len(records.ptr)}; "
            "write the beton again with `prep write-beton`"
        )
    reader = _check_records(path, card, records)
    labels = reader.metadata["f1"].astype(np.int64)
    return Dataset(path, card, records, labels, int(reader.page_size))


def _check_header(path: Path) -> None:
    from ffcv.types import ALLOC_TABLE_TYPE, HeaderType

    size = path.stat().st_size
    if size < HeaderType.itemsize:
        raise UserError(f"{path} has {size} bytes: not a beton; write it with `prep write-beton`")
    header = np.fromfile(path, HeaderType, 1)[0]
    if header["num_fields"] != 2:
        raise UserError(f"{path} is not a beton of this project; write it with `prep write-beton`")
    if header["version"] != FFCV_VERSION:
        raise UserError(
            f"{path} has beton version {header['version']}, FFCV reads {FFCV_VERSION}; write it "
            "again with `prep write-beton`"
        )
    expected = int(header["alloc_table_ptr"]) + int(header["num_samples"]) * (
        ALLOC_TABLE_TYPE.itemsize
    )
    if size != expected:
        raise UserError(
            f"{path} has {size} bytes, its header says {expected}: it is cut short or damaged; "
            "copy it again, or write it again with `prep write-beton`"
        )


def _check_records(path: Path, card: Card, records: Records) -> Reader:
    """Compare where each sample lies, its size and its label with what prep wrote beside it."""
    if not card.labelled:
        raise UserError(
            f"{path} is a {card.split} split without labels, which nothing can be learned from or "
            "judged by; give a split that has labels"
        )
    from ffcv.fields import IntField, RGBImageField
    from ffcv.reader import Reader

    remedy = "copy it again, or write it again with `prep write-beton`"
    try:
        reader = Reader(str(path))
    except (KeyError, ValueError) as error:  # of a field's type or name
        raise UserError(f"{path} has damaged field descriptions ({error}); {remedy}") from error
    fields = [(name, type(field)) for name, field in reader.handlers.items()]
    if fields != [("image", RGBImageField), ("label", IntField)]:
        raise UserError(
            f"{path} has fields {reader.field_names}, expected image and label; {remedy}"
        )
    table = reader.alloc_table
    table = table[np.argsort(table["sample_id"], kind="stable")]
    if not (
        np.array_equal(table["sample_id"], np.arange(card.samples))
        and np.array_equal(table["ptr"], records.ptr)
        and np.array_equal(table["size"], records.size)
    ):
        raise UserError(
            f"{path} and {handover.records_path(path)} are not of one make; write the beton again "
            "with `prep write-beton`"
        )
    images, labels = reader.metadata["f0"], reader.metadata["f1"]
    damaged = (
        (images["data_ptr"] != records.ptr)
        | (images["width"] != card.side)
        | (images["height"] != card.side)
        | (images["mode"] != STORED_AS.get(card.mode))
        | (labels < 0)
        | (labels >= len(card.classes))
    )
    if damaged.any():
        raise UserError(
            f"{path}: the metadata of sample {int(damaged.argmax())} is damaged; {remedy}"
        )
    counts = np.bincount(labels, minlength=len(card.classes)).tolist()
    if counts != [entry.samples for entry in card.classes]:
        raise UserError(
            f"{path} has {counts[:5]} ... samples of its first classes, its card says "
            f"{[entry.samples for entry in card.classes[:5]]} ...; {remedy}"
        )
    return reader


def training_statistics(dataset: Dataset) -> Statistics:
    """The statistics beside a training beton. Raises UserError when missing or of other data."""
    path = handover.stats_path(dataset.path)
    if dataset.card.split != "train" and not path.exists():
        raise UserError(
            f"{dataset.path} is of the split {dataset.card.split}; training needs the one that "
            "`prep write-beton OUT/train` wrote"
        )
    return handover.read_statistics_of(dataset.card, path)


def check_same_classes(
    card: Card, wnids: list[str], side: int, what: str, advice: str = ""
) -> None:
    """Raises UserError when a beton's classes or side differ from those trained on.

    advice: what else could be done about other classes.
    """
    found = [entry.wnid for entry in card.classes]
    if found != wnids:
        differing = next(
            (pair for pair in zip(found, wnids, strict=False) if pair[0] != pair[1]),
            (f"{len(found)} classes", f"{len(wnids)} classes"),
        )
        raise UserError(
            f"{what} has other classes than the training data: {differing[0]} in place of "
            f"{differing[1]}; prepare both from one source, or name another beton{advice}"
        )
    if card.side != side:
        raise UserError(
            f"{what} has images of side {card.side}, the training data {side}; prepare both with "
            "one --size"
        )
