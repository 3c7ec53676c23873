"""Checks a beton against its card and records: structure, checksums, labels, every picture."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from pathlib import Path

import numpy as np

from prep import beton, handover, images
from prep.beton import Beton
from prep.handover import UNLABELLED, Card, Records
from prep.program import UserError
from prep.progress import progress
from prep.units import run_units

UNIT_SIZE = 1024  # samples: about a second of one core
READ = 1 << 24  # bytes


@dataclasses.dataclass(frozen=True)
class Unit:
    """Some samples of a beton, in file order."""

    path: Path
    samples: list[int]
    ptr: list[int]
    size: list[int]
    crc32: list[int]
    side: int
    mode: str


def verify(path: Path, jobs: int | None) -> Card:
    """Check the whole file; returns its card.

    Raises UserError naming what is wrong: header, metadata or table; a sample with its class and
    offset; the labels; or, where every record is whole, the sha256.
    """
    opened = beton.open_beton(path)
    card = handover.read_beton_card(path)
    records = handover.read_records(handover.records_path(path))
    _check_card(opened, card)
    _check_places(opened, records)
    order = np.argsort(opened.layout.ptr, kind="stable")
    units = [
        Unit(
            path=path,
            samples=part.tolist(),
            ptr=records.ptr[part].tolist(),
            size=records.size[part].tolist(),
            crc32=records.crc32[part].tolist(),
            side=card.side,
            mode=card.mode,
        )
        for part in np.array_split(order, range(UNIT_SIZE, len(order), UNIT_SIZE))
    ]
    damaged: list[tuple[int, str]] = []
    with progress(f"verify {path.name}", len(opened)) as report:
        for count, faults in run_units(verify_unit, units, jobs):
            damaged += faults
            report(count, len(faults))
    if damaged:
        sample, fault = min(damaged)
        label = int(opened.labels[sample])
        of = (
            f"class {card.classes[label].wnid} ({card.name_of(label)})"
            if label >= 0
            else "no class"
        )
        raise UserError(
            f"{path}: {len(damaged)} damaged samples; the first is sample {sample} of {of} at "
            f"offset {opened.layout.ptr[sample]}: {fault}; write the beton again or copy it again"
        )
    if _sha256(path) != card.sha256:
        raise UserError(
            f"{path}: every sample is whole, but the sha256 is not the card's: header, metadata, "
            "table or padding has changed; write the beton again or copy it again"
        )
    return card


def _check_card(opened: Beton, card: Card) -> None:
    path = opened.path
    if len(opened) != card.samples:
        raise UserError(
            f"{path} has {len(opened)} samples, its card says {card.samples}; the card is of "
            "another beton: write the beton again"
        )
    classes = len(card.classes)
    lowest, highest = (0, classes - 1) if card.labelled else (UNLABELLED, UNLABELLED)
    outside = np.flatnonzero((opened.labels < lowest) | (opened.labels > highest))
    if len(outside):
        sample = int(outside[0])
        raise UserError(
            f"{path}: metadata of sample {sample}: label {opened.labels[sample]} is not one of "
            f"{classes} classes; write the beton again or copy it again"
        )
    counts = np.bincount(opened.labels[opened.labels != UNLABELLED], minlength=classes)
    for entry, count in zip(card.classes, counts.tolist(), strict=True):
        if count != entry.samples:
            raise UserError(
                f"{path}: metadata: class {entry.wnid} has {count} samples, the card says "
                f"{entry.samples}; write the beton again or copy it again"
            )
    wrong = np.flatnonzero(
        (opened.widths != card.side)
        | (opened.heights != card.side)
        | (opened.modes != beton.MODES[card.mode])
    )
    if len(wrong):
        sample = int(wrong[0])
        raise UserError(
            f"{path}: metadata of sample {sample}: {opened.widths[sample]}x"
            f"{opened.heights[sample]}, mode {opened.modes[sample]}; the card says {card.side}x"
            f"{card.side}, {card.mode}: write the beton again or copy it again"
        )


def _check_places(opened: Beton, records: Records) -> None:
    ptr, size = opened.layout.ptr, opened.layout.size
    path = handover.records_path(opened.path)
    if records.ptr.shape != ptr.shape or records.size.shape != size.shape:
        raise UserError(
            f"{path} has {len(records.ptr)} samples, {opened.path} has {len(opened)}; one of them "
            "is of another make: write the beton again"
        )
    moved = np.flatnonzero((records.ptr != ptr) | (records.size != size))
    if len(moved):
        sample = int(moved[0])
        raise UserError(
            f"{opened.path}: its allocation table places sample {sample} at {ptr[sample]} with "
            f"{size[sample]} bytes, {path} at {records.ptr[sample]} with {records.size[sample]}; "
            "write the beton again or copy both again"
        )


def verify_unit(unit: Unit) -> tuple[int, list[tuple[int, str]]]:
    """Checksum and decode some samples; returns their number and (sample, fault) pairs."""
    faults: list[tuple[int, str]] = []
    with unit.path.open("rb") as file:
        for sample, ptr, size, crc32 in zip(
            unit.samples, unit.ptr, unit.size, unit.crc32, strict=True
        ):
            file.seek(ptr)
            fault = _fault(file.read(size), crc32, unit.side, unit.mode)
            if fault:
                faults.append((sample, fault))
    return len(unit.samples), faults


def _fault(data: bytes, crc32: int, side: int, mode: str) -> str | None:
    if zlib.crc32(data) != crc32:
        return "its bytes have changed (crc32 differs from records.npz)"
    if mode == "raw":
        return None if len(data) == side * side * 3 else f"it has {len(data)} bytes"
    try:
        shape = images.decode_as_ffcv(data).shape
    except ValueError as error:
        return f"it cannot be decoded ({error})"
    return None if shape == (side, side, 3) else f"its picture has shape {shape}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ):
            digest.update(data)
    return digest.hexdigest()
