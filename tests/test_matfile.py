"""Struct arrays of MAT-files that scipy writes, and files that are damaged or hostile."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from prep.matfile import MatError, read_structs

FIELDS = ("number", "text")
HEADER = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"


def structs(*rows: tuple[Any, ...], names: tuple[str, ...] = FIELDS) -> np.ndarray:
    array = np.empty((len(rows), 1), dtype=[(name, object) for name in names])
    for i, row in enumerate(rows):
        array[i, 0] = row
    return array


def mat(compress: bool = False, **variables: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, variables, do_compression=compress)
    return file.getvalue()


def element(kind: int, payload: bytes) -> bytes:
    return struct.pack("<II", kind, len(payload)) + payload + b"\0" * (-len(payload) % 8)


def array(kind: int, dimensions: tuple[int, ...], *parts: bytes) -> bytes:
    """A variable called s."""
    flags = element(6, struct.pack("<II", kind, 0))
    shape = element(5, struct.pack(f"<{len(dimensions)}i", *dimensions))
    return element(14, flags + shape + element(1, b"s") + b"".join(parts))


# --------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("compress", [False, True])
def test_texts_and_whole_numbers_of_the_fields_asked_for(compress: bool) -> None:
    rows = structs(
        (1.0, "ant, emmet", np.arange(3.0)),
        (70000, "", np.eye(2)),
        (np.int8(-3), "über 蟻", []),
        names=(*FIELDS, "other"),
    )
    data = mat(compress, before=np.eye(3), s=rows, after="text")
    assert read_structs(data, "s", FIELDS, limit=10_000) == [
        {"number": 1, "text": "ant, emmet"},
        {"number": 70000, "text": ""},
        {"number": -3, "text": "über 蟻"},
    ]
    assert read_structs(data, "s", ("text",), limit=10_000)[0] == {"text": "ant, emmet"}


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "f4", "f8"]
)
def test_numbers_of_every_type(kind: str) -> None:
    rows = structs((np.array([[100]], kind), "a"))
    assert read_structs(mat(s=rows), "s", ("number",), limit=0) == [{"number": 100}]


def test_it_reads_what_scipy_reads() -> None:
    rows = structs(*((i, f"n{i:08d}") for i in range(300)))
    data = mat(s=rows)
    loaded = loadmat(io.BytesIO(data), squeeze_me=True)["s"]
    expected = [{"number": int(row["number"]), "text": str(row["text"])} for row in loaded]
    assert read_structs(data, "s", FIELDS, limit=0) == expected


def test_the_order_is_columns_first() -> None:
    rows = structs(*((i, "") for i in range(6))).reshape(2, 3)
    found = read_structs(mat(s=rows), "s", ("number",), limit=0)
    assert [row["number"] for row in found] == [0, 3, 1, 4, 2, 5]


def test_a_file_of_the_other_byte_order() -> None:
    def big(kind: int, payload: bytes) -> bytes:
        return struct.pack(">II", kind, len(payload)) + payload + b"\0" * (-len(payload) % 8)

    def big_array(kind: int, size: int, name: bytes, *parts: bytes) -> bytes:
        head = big(6, struct.pack(">II", kind, 0)) + big(5, struct.pack(">2i", 1, size))
        return big(14, head + big(1, name) + b"".join(parts))

    cells = big_array(6, 1, b"", big(4, struct.pack(">H", 515))) + big_array(
        4, 2, b"", big(4, "aß".encode("utf-16-be"))
    )
    names = struct.pack(">HHi", 4, 5, 8) + big(1, b"number\0\0text\0\0\0\0")  # a small element
    header = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    data = header + big_array(2, 1, b"s", names, cells)
    assert read_structs(data, "s", FIELDS, limit=0) == [{"number": 515, "text": "aß"}]


# --------------------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin"),
        (b"\x89HDF" + bytes(200), "does not begin"),
        (HEADER, "there is no variable s"),
        (HEADER[:124] + struct.pack("<H", 0x0200) + b"IM", "does not begin"),
        (mat(t=np.eye(2)), "there is no variable s"),
        (mat(s=np.eye(2)), "s is no struct array"),
        (mat(s=structs((1,), names=("number",))), "its structs have no field text"),
        (mat(s=structs((1.5, "a"))), "a number is not whole"),
        (mat(s=structs((np.inf, "a"))), "a number is not whole"),
        (mat(s=structs((np.arange(2), "a"))), "number 1 is neither a text nor one number"),
        (mat(s=structs((1, "a"), ([], "a"))), "number 2 is neither a text nor one number"),
        (mat(s=structs((1, np.array(["a", 1], object)))), "text 1 is neither a text nor one"),
        (mat(s=structs((1, "a")))[:-20], "it is cut short"),
        (HEADER + b"\0\0\0", "it is cut short"),
        (HEADER + element(15, b"no zlib stream.."), "a compressed variable is damaged"),
        (HEADER + element(9, bytes(8)), "an element of type 9 is where an array belongs"),
        (HEADER + array(2, (1, -1)), "no class or no dimensions"),
        (HEADER + array(2, (2**31 - 1,) * 30, element(5, b"\4\0\0\0"), element(1, b"number\0\0")),
         "its structs have no field"),
    ],
)  # fmt: skip
def test_what_is_no_such_array_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MatError, match=message):
        read_structs(data, "s", FIELDS, limit=1000)


def test_any_damage_is_an_error_or_other_values() -> None:
    draw = random.Random(0)
    for compress in (False, True):
        whole = mat(compress, s=structs(*((i, "a, b" * i) for i in range(5))))
        for _ in range(500):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(100, len(data))] = draw.choice((0, 1, 14, 15, 255))
            with contextlib.suppress(MatError):
                read_structs(bytes(data[: draw.randint(100, len(data))]), "s", FIELDS, limit=2000)


# --------------------------------------------------------------------------- bounds


def peak(data: bytes, limit: int) -> int:
    """Bytes that reading a hostile file takes at most."""
    tracemalloc.start()
    try:
        with contextlib.suppress(MatError):
            read_structs(data, "s", FIELDS, limit)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_compressed_variable_expands_to_the_limit() -> None:
    bomb = HEADER + element(15, zlib.compress(bytes(50_000_000)))
    assert peak(bomb, 1_000_000) < 5_000_000
    with pytest.raises(MatError, match="expand to more than 1,000,000 bytes"):
        read_structs(bomb, "s", FIELDS, limit=1_000_000)


def test_the_limit_is_for_all_variables_together() -> None:
    data = mat(True, a=np.zeros(1000), b=np.ones(1000), s=structs((1, "a")))
    assert read_structs(data, "s", FIELDS, limit=17_000)
    with pytest.raises(MatError, match="expand to more than"):
        read_structs(data, "s", FIELDS, limit=10_000)


def test_sizes_that_are_only_claimed_take_no_memory() -> None:
    names = element(5, b"\x08\0\0\0") + element(1, b"number\0\0text\0\0\0\0")
    assert peak(HEADER + array(2, (2**31 - 1, 2**31 - 1), names), 0) < 1_000_000
    text = array(4, (1, 2**31 - 1), element(4, b""))
    assert peak(HEADER + array(2, (1, 1), names, text, text), 0) < 1_000_000
    many = element(5, b"\x01\0\0\0") + element(1, bytes(10_000_000))
    assert peak(HEADER + array(2, (1, 1), many), 0) < 25_000_000


def test_cells_within_cells_are_passed_over() -> None:
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<2i", 1, 1)) + bytes(8)
    depth = 200_000
    sizes = [(depth - level) * (8 + len(head)) - 8 for level in range(depth)]
    nested = b"".join(struct.pack("<II", 14, size) + head for size in sizes)
    names = element(5, b"\x08\0\0\0") + element(1, b"number\0\0text\0\0\0\0")
    with pytest.raises(MatError, match="number 1 is neither a text nor one number"):
        read_structs(HEADER + array(2, (1, 1), names, nested, nested), "s", FIELDS, limit=0)
