"""Checks every byte of a beton against its card and records, and decodes every picture.

The card has a checksum of its own and names the sha256 of beton and records; statistics, where they
lie beside, have one too, and name the pictures that they are of. What is not a record
is made again from them and compared (prep.anatomy): labels in range, samples per class and every
place follow. Each record has its crc32, so that what is damaged is named, not only found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from prep import beton, handover
from prep.anatomy import head_fault, padding_fault, table_fault
from prep.beton import Layout, Page
from prep.files import naming
from prep.handover import Card, Records
from prep.order import labels_of
from prep.page import jpeg_fault
from prep.program import UserError, counted, no_beton
from prep.progress import progress
from prep.units import run_units

UNIT_PAGES = 4  # some 1,000 JPEGs: about a second of one core
REMEDY = "write the beton again or copy it again"
MOST_PLACES = 1000  # of damage, that are named; the others are counted


@dataclasses.dataclass(frozen=True)
class Unit:
    """Some pages of a beton."""

    path: Path
    pages: list[Page]
    crc32: npt.NDArray[np.uint32]  # [n] of their samples
    side: int
    mode: str


class Fault(NamedTuple):
    """A damaged place."""

    offset: int
    sample: int | None  # None: padding
    fault: str


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was found in a unit."""

    samples: int
    faults: int
    first: list[Fault]  # MOST_PLACES at most


def verify(path: Path, jobs: int | None) -> Card:
    """Check the whole file; returns its card.

    Raises UserError naming what is wrong: card, records or statistics; header, metadata, table or
    padding; samples with class and offset, in `found` too; or, where all of that is right, the
    sha256.
    """
    if path.suffix != ".beton":  # of a companion the next lines would say that another is missing
        raise UserError(f"{path} is no .beton; give FILE.beton")
    if not path.is_file():
        raise UserError(no_beton(path))
    card = handover.read_beton_card(path)
    records = handover.read_records_of(path, card)
    _check_statistics(path, card)
    layout = beton.plan_layout(records.size)
    digest = hashlib.sha256()
    with path.open("rb") as file, naming(path):
        _check_structure(file, path, layout, card)
        count, first = 0, list[Fault]()
        with progress(f"verify {path.name}", card.samples) as report:
            for unit in run_units(verify_unit, _units(path, layout, records, card), jobs):
                count += unit.faults
                if unit.first:
                    found = [*first, *unit.first]
                    first = heapq.nsmallest(MOST_PLACES, found, key=lambda fault: fault.offset)
                # As much as a unit has: in step with the workers, whose pages are in the cache.
                digest.update(file.read(UNIT_PAGES * beton.PAGE_SIZE))
                report(unit.samples, unit.faults)
        _refuse_faults(path, card, count, first)
        while data := file.read(beton.PAGE_SIZE):
            digest.update(data)
    if digest.hexdigest() != card.sha256:
        raise UserError(
            f"{path}: every part is as card and records say, but its sha256 is not the card's; "
            f"the disk may be faulty, or the card is of another make: {REMEDY}"
        )
    return card


def _check_statistics(path: Path, card: Card) -> None:
    """Raises UserError when there are statistics beside a beton that are damaged or not of it."""
    place = handover.stats_path(path)
    if not place.exists():
        return
    if card.split == "train":
        handover.read_statistics_of(card, place)
    else:
        handover.read_statistics(place)


def _check_structure(file: BinaryIO, path: Path, layout: Layout, card: Card) -> None:
    size = path.stat().st_size
    if size != layout.file_size:
        raise UserError(
            f"{path} has {size} bytes, by card and records it should have {layout.file_size}; it "
            f"is cut short or damaged: {REMEDY}"
        )
    head = beton.head(layout, labels_of(card), card.side, card.mode)
    fault = head_fault(file.read(len(head)), head, card.samples)
    if fault is None:
        table = beton.table(layout)
        file.seek(layout.table_start)
        fault = table_fault(file.read(len(table)), table)
    file.seek(0)
    if fault:
        raise UserError(f"{path}: {fault}; {REMEDY}")


def _units(path: Path, layout: Layout, records: Records, card: Card) -> Iterator[Unit]:
    """The pages, some at a time, made as they are needed."""
    pages = beton.pages(layout)
    while part := list(itertools.islice(pages, UNIT_PAGES)):
        crc32 = records.crc32[part[0].samples.start : part[-1].samples.stop]
        yield Unit(path, part, crc32, card.side, card.mode)


def verify_unit(unit: Unit) -> Checked:
    """Checksum and decode the samples of some pages, and look at the zeros behind them."""
    faults: list[Fault] = []
    crc32 = iter(unit.crc32.tolist())
    with unit.path.open("rb") as file:
        for page in unit.pages:
            data = _read_page(file, page, unit.path)
            records = zip(page.bounds, page.samples, page.records(memoryview(data)), strict=False)
            for start, sample, record in records:
                if fault := _fault(record, next(crc32), unit.side, unit.mode):
                    faults.append(Fault(page.start + start, sample, fault))
            rest = np.frombuffer(data, np.uint8)[page.bounds[-1] :]
            if rest.any():
                place = page.start + page.bounds[-1] + int((rest != 0).argmax())
                faults.append(Fault(place, None, padding_fault(place)))
    return Checked(len(unit.crc32), len(faults), faults[:MOST_PLACES])


def _read_page(file: BinaryIO, page: Page, path: Path) -> bytes:
    """Raises UserError where the disk cannot be read: beyond that nothing can be said."""
    try:
        file.seek(page.start)
        return file.read(beton.PAGE_SIZE)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read between offsets {page.start} and "
            f"{page.start + beton.PAGE_SIZE}, samples {page.samples.start} to "
            f"{page.samples.stop - 1}: {error.strerror}; {REMEDY}"
        ) from error


def _fault(data: memoryview, crc32: int, side: int, mode: str) -> str | None:
    if zlib.crc32(data) != crc32:
        return "its bytes have changed (crc32 differs from records.npz)"
    if mode == "raw":
        return None if len(data) == side * side * 3 else f"it has {len(data)} bytes"
    return jpeg_fault(data, side, decode=True)


def _refuse_faults(path: Path, card: Card, count: int, first: list[Fault]) -> None:
    if not count:
        return
    labels = labels_of(card)
    places = [_place(card, labels, fault) for fault in first]
    raise UserError(
        f"{path}: {counted(count, 'damaged place')}; the first: {in_words(places[0])}; {REMEDY}",
        found={"damaged_places": count, "damaged": places},
    )


def _place(card: Card, labels: npt.NDArray[np.int64], fault: Fault) -> dict[str, Any]:
    """A damaged place as --json has it; wnid and name are null where there is no class."""
    place = fault._asdict() | {"wnid": None, "name": None}
    if fault.sample is not None and (label := int(labels[fault.sample])) >= 0:
        place |= {"wnid": card.classes[label].wnid, "name": card.name_of(label)}
    return place


def in_words(place: Mapping[str, Any]) -> str:
    """A damaged place for people; that of padding says its offset itself."""
    if place["sample"] is None:
        return str(place["fault"])
    of_class = f"class {place['wnid']} ({place['name']})" if place["wnid"] else "no class"
    return f"sample {place['sample']} of {of_class} at offset {place['offset']}: {place['fault']}"
