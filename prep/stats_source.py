"""A training split's samples, where statistics are taken of them: a prepared set or a beton.

Both give Places, and a function that reads one into uint8 [S,S,3] as FFCV's loader would show it.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep import beton, handover, images, prepared
from prep.beton import Beton
from prep.handover import Card
from prep.place import Place, read_unchanged
from prep.program import UserError
from prep.write import RAW_TOOL

Pixels = npt.NDArray[np.uint8]
Read = Callable[[Place, Pixels], None]

PREPARE_AGAIN = "remove this prepared set and run `prep resize` again"


@dataclasses.dataclass(frozen=True)
class Samples:
    """A training split; its samples have numbers from 0."""

    card: Card
    output: Path  # where the statistics of these samples lie
    decoder: str  # what makes pixels of their bytes, or made them
    crc32: npt.NDArray[np.uint32]  # [N] of their bytes
    places: Callable[[int, int], list[Place]]  # of the samples start..stop-1
    read: Read  # puts the pixels of a place in uint8 [S,S,3]; pickled by name

    def __len__(self) -> int:
        return len(self.crc32)

    def picture(self, number: int) -> Pixels:
        """The pixels of one sample, uint8 [S,S,3]. Raises UserError when it is damaged."""
        pixels = np.empty((self.card.side, self.card.side, 3), np.uint8)
        self.read(self.places(number, number + 1)[0], pixels)
        return pixels


def open_training(source: Path) -> Samples:
    """Open OUT/train, or a .beton of it.

    Raises UserError when it is neither, is not the training split, or is empty.
    """
    is_beton = source.suffix == ".beton" and not source.is_dir()
    samples = _of_beton(source) if is_beton else _of_prepared(source)
    if samples.card.split != "train":
        raise UserError(
            f"{source} is the {samples.card.split} split; statistics are of the training split "
            f"only: give {'its beton' if is_beton else 'OUT/train'}"
        )
    if len(samples) == 0:
        raise UserError(f"{source} holds no samples; see rejects.jsonl beside the prepared set")
    return samples


# --------------------------------------------------------------------------- a prepared set


def _of_prepared(folder: Path) -> Samples:
    split = prepared.open_prepared(folder)
    return Samples(
        card=split.card,
        output=prepared.split_stats_path(folder),
        decoder=images.FFCV_DECODER,
        crc32=split.crc32,
        places=split.places,
        read=read_prepared,
    )


def read_prepared(place: Place, slot: Pixels) -> None:
    """Raises UserError when the file is missing or is not the one that was prepared."""
    _decode(read_unchanged(place), slot, place, PREPARE_AGAIN)


def _decode(data: bytes, slot: Pixels, place: Place, next_step: str) -> None:
    try:
        pixels = images.decode_as_ffcv(data, slot)
    except ValueError as error:
        raise UserError(f"{place.path} cannot be decoded ({error}); {next_step}") from error
    if pixels.shape != slot.shape:
        side = len(slot)
        raise UserError(
            f"{place.path} has shape {pixels.shape}, its card says {side}x{side}x3; {next_step}"
        )


# --------------------------------------------------------------------------- a beton


def _of_beton(path: Path) -> Samples:

    opened = beton.open_beton(path)
    card = handover.read_beton_card(path)
    records = handover.read_records_of(path, card)
    fitting = (
        np.array_equal(records.ptr, opened.layout.ptr)
        and np.array_equal(records.size, opened.layout.size)
        and len(records.crc32) == len(opened) == card.samples
        and bool((opened.widths == card.side).all() and (opened.heights == card.side).all())
        and bool((opened.modes == beton.MODES.get(card.mode, -1)).all())
    )
    if not fitting:
        raise UserError(
            f"{path}, {handover.card_path(path).name} and {handover.records_path(path).name} are "
            f"not of one make; `prep verify {path}` says where they differ"
        )
    raw = card.mode == "raw"
    return Samples(
        card=card,
        output=handover.stats_path(path),
        decoder=card.tools.get(RAW_TOOL, "unknown") if raw else images.FFCV_DECODER,
        crc32=records.crc32,
        places=lambda start, stop: _places(opened, records.crc32, start, stop),
        read=read_raw if raw else read_jpg,
    )


def _places(opened: Beton, crc32: npt.NDArray[np.uint32], start: int, stop: int) -> list[Place]:
    columns = zip(
        opened.layout.ptr[start:stop].tolist(),
        opened.layout.size[start:stop].tolist(),
        crc32[start:stop].tolist(),
        strict=True,
    )
    folder, name = opened.path.parent, opened.path.name
    return [Place(folder, name, ptr, size, crc) for ptr, size, crc in columns]


def read_jpg(place: Place, slot: Pixels) -> None:
    """Raises UserError when the record is damaged."""
    _decode(_record(place), slot, place, "write the beton again")


def read_raw(place: Place, slot: Pixels) -> None:
    """Raises UserError when the record is damaged."""
    data = _record(place)
    if len(data) != slot.nbytes:
        raise UserError(
            f"{place.path}: the record at offset {place.offset} has {len(data)} bytes, its card "
            f"says {slot.nbytes}; write the beton again"
        )
    slot[:] = np.frombuffer(data, np.uint8).reshape(slot.shape)


def _record(place: Place) -> bytes:
    try:
        data = place.read()
    except OSError as error:
        raise UserError(
            f"{place.path} cannot be read: {error.strerror}; copy or write the beton again"
        ) from error
    if zlib.crc32(data) != place.crc32:
        raise UserError(
            f"{place.path}: the record at offset {place.offset} has changed (crc32 differs from "
            f"records.npz); `prep verify {place.path}` names every damaged sample"
        )
    return data
