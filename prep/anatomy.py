"""Names the part of a beton in which its bytes differ from those that they should be.

Header, field descriptions, metadata, table and padding are decided by the card and the sizes of
the records, so they are made again (prep.beton) and compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prep.beton import HEADER, METADATA_START, SAMPLE, TABLE

# prep.beton.SAMPLE by the names that a person knows.
METADATA = np.dtype(
    {
        "names": ["mode", "width", "height", "pointer", "unused", "label"],
        "formats": ["<u1", "<u2", "<u2", "<u8", "V3", "<i8"],
        "offsets": [0, 1, 3, 5, 13, 16],
        "itemsize": SAMPLE.itemsize,
    }
)


def head_fault(found: bytes, expected: bytes, samples: int) -> str | None:
    """What is wrong before the first page; None when nothing is."""
    place = _first_difference(found, expected)
    if place is None:
        return None
    if place < HEADER.itemsize:
        return f"header: {_field(HEADER, 0, place, found, expected)}"
    if place < METADATA_START:
        return f"header: the description of its fields is damaged at offset {place}"
    sample, within = divmod(place - METADATA_START, SAMPLE.itemsize)
    if sample < samples:
        start = METADATA_START + sample * SAMPLE.itemsize
        said = _field(METADATA, start, within, found, expected)
        return f"metadata of sample {sample}: {said}"
    return padding_fault(place)


def table_fault(found: bytes, expected: bytes) -> str | None:
    """What is wrong with the allocation table; None when nothing is."""
    place = _first_difference(found, expected)
    if place is None:
        return None
    sample, within = divmod(place, TABLE.itemsize)
    said = _field(TABLE, sample * TABLE.itemsize, within, found, expected)
    return f"allocation table: row of sample {sample}: {said}"


def padding_fault(place: int) -> str:
    """What is wrong where zeros should be; place: bytes from the file's start."""
    return f"the padding at offset {place} is not zero"


def _first_difference(found: bytes, expected: bytes) -> int | None:
    if found == expected:
        return None
    differs = np.frombuffer(found, np.uint8) != np.frombuffer(expected, np.uint8)
    return int(differs.argmax())


def _field(dtype: np.dtype[Any], start: int, within: int, found: bytes, expected: bytes) -> str:
    """The field at byte `within` of the row at `start`: its value, and what it should be."""
    fields: Mapping[str, Any] = dtype.fields or {}
    name = max((n for n in fields if fields[n][1] <= within), key=lambda n: fields[n][1])
    part = dtype[name]
    values = [
        np.frombuffer(data, part, 1, start + fields[name][1])[0].tolist()
        for data in (found, expected)
    ]
    return f"{name} is {values[0]}, by card and records it should be {values[1]}"
