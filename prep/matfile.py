"""Reads a struct array out of a MAT-file of level 5, which MATLAB's `save` writes.

Takes the file's bytes, gives one record a struct with the fields asked for: texts and whole
numbers. Sizes are held against the bytes that are there, nothing recurses, and what is compressed
expands to a limit, so a hostile file costs bounded memory; on 15 MB of cells within cells (0.6 MB
compressed) scipy.io.loadmat 1.17 ends the process with a segmentation fault.
Source: MathWorks, MAT-File Format, "Level 5 MAT-File Format".
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

HEADER = 128  # bytes: text, version, byte order
LEVEL_5 = 0x0100
MOST_NUMBERS = 32  # in flags, dimensions and what a field holds
MOST_NAMES = 2**16  # bytes of a struct's field names
# Data types of an element.
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXTS = {1: "ascii", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
# Classes of an array.
STRUCT, CHAR = 2, 4
NUMERIC = range(6, 16)  # double, single, int8 to uint64

Value = str | int
_Element = tuple[int, memoryview]  # data type, payload


class MatError(ValueError):
    """The bytes are no MAT-file of level 5, are damaged, or lack what was asked for."""


@dataclasses.dataclass(frozen=True)
class _Array:
    kind: int
    size: int  # the product of its dimensions
    name: bytes
    parts: Iterator[_Element]  # what follows


def read_structs(
    data: bytes, variable: str, fields: Sequence[str], limit: int
) -> list[Mapping[str, Value]]:
    """The structs of `variable`, columns first, each with `fields`.

    limit: bytes that the compressed variables may expand to, all together. Raises MatError.
    """
    order = _byte_order(data)
    for kind, payload in _elements(memoryview(data)[HEADER:], order):
        if kind == COMPRESSED:
            expanded = _decompress(payload, limit)
            limit -= len(expanded)
            array = _array(_next(_elements(memoryview(expanded), order)), order)
        else:
            array = _array((kind, payload), order)
        if array.name == variable.encode():
            if array.kind != STRUCT:
                raise MatError(f"{variable} is no struct array")
            return list(_structs(array, order, fields))
    raise MatError(f"there is no variable {variable}")


def _byte_order(data: bytes) -> str:
    """`<` or `>`, as struct has them."""
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER])
    if order is None or struct.unpack_from(f"{order}H", data, HEADER - 4)[0] != LEVEL_5:
        raise MatError("it does not begin as a MAT-file of level 5 does")
    return order


def _decompress(payload: memoryview, limit: int) -> bytes:
    try:
        expanded = zlib.decompressobj().decompress(payload, limit + 1)
    except zlib.error as error:
        raise MatError(f"a compressed variable is damaged ({error})") from error
    if len(expanded) > limit:
        raise MatError(f"its variables expand to more than {limit:,} bytes")
    return expanded


# --------------------------------------------------------------------------- elements


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Consecutive elements: a tag of type and size, the payload, padding to 8 bytes.

    Up to 4 bytes lie within the tag, its first half-word being their number.
    """
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise MatError("it is cut short")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            position += 8
        elif kind == COMPRESSED:  # has no padding
            position = start + size
        else:
            position = start + -(-size // 8) * 8
        if start + size > len(data):
            raise MatError("it is cut short")
        yield kind, data[start : start + size]


def _next(elements: Iterator[_Element]) -> _Element:
    try:
        return next(elements)
    except StopIteration:
        raise MatError("it is cut short") from None


def _array(element: _Element, order: str) -> _Array:
    kind, payload = element
    if kind != MATRIX:
        raise MatError(f"an element of type {kind} is where an array belongs")
    parts = _elements(payload, order)
    flags = _integers(_next(parts), order)
    dimensions = _integers(_next(parts), order)
    if not flags or min(dimensions, default=-1) < 0:
        raise MatError("an array has no class or no dimensions")
    return _Array(flags[0] & 0xFF, math.prod(dimensions), bytes(_next(parts)[1]), parts)


def _integers(element: _Element, order: str) -> list[int]:
    """Numbers of any type; fractions are refused."""
    kind, payload = element
    if kind not in NUMBERS:
        raise MatError(f"an element of type {kind} is where numbers belong")
    width = struct.calcsize(order + NUMBERS[kind])
    if len(payload) % width or len(payload) > MOST_NUMBERS * width:
        raise MatError(f"{len(payload)} bytes of numbers are where a few belong")
    values = struct.unpack(f"{order}{len(payload) // width}{NUMBERS[kind]}", payload)
    if not all(float(value).is_integer() for value in values):
        raise MatError("a number is not whole")
    return [int(value) for value in values]


# --------------------------------------------------------------------------- structs


def _structs(array: _Array, order: str, fields: Sequence[str]) -> Iterator[dict[str, Value]]:
    """Field names of equal length, then an array for each field of each struct."""
    lengths = _integers(_next(array.parts), order)
    padded = bytes(_next(array.parts)[1])
    if len(lengths) != 1 or lengths[0] < 1 or len(padded) % lengths[0] or len(padded) > MOST_NAMES:
        raise MatError("its field names are damaged")
    starts = range(0, len(padded), lengths[0])
    names = [padded[i : i + lengths[0]].split(b"\0")[0].decode("latin-1") for i in starts]
    missing = [field for field in fields if field not in names]
    if missing:
        raise MatError(f"its structs have no field {missing[0]}")
    for number in range(1, array.size + 1):
        cells = {name: _next(array.parts) for name in names}
        yield {field: _value(cells[field], order, f"{field} {number}") for field in fields}


def _value(cell: _Element, order: str, what: str) -> Value:
    array = _array(cell, order)
    if array.kind == CHAR:
        return _text(_next(array.parts), order) if array.size else ""
    if array.kind in NUMERIC and array.size == 1:
        values = _integers(_next(array.parts), order)
        if len(values) == 1:
            return values[0]
    raise MatError(f"{what} is neither a text nor one number")


def _text(element: _Element, order: str) -> str:
    kind, payload = element
    codec = TEXTS.get(kind, "")
    if codec in ("utf-16", "utf-32"):
        codec += "-le" if order == "<" else "-be"
    try:
        return bytes(payload).decode(codec)
    except (LookupError, UnicodeDecodeError) as error:
        raise MatError(f"a text cannot be read ({error})") from error
