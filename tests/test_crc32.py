"""crc32 in kernels: zlib's, with and without carry-less multiplication."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding

from train import crc32 as module
from train.crc32 import FOLDED, crc32

RANDOM = np.random.default_rng(0)


def of(data: bytes, function: Any = crc32) -> int:
    return int(function(np.frombuffer(data, np.uint8)))


@given(st.binary(max_size=5 * FOLDED))
def test_it_is_that_of_zlib(data: bytes) -> None:
    assert of(data) == zlib.crc32(data)


def test_every_length_around_the_blocks() -> None:
    data = RANDOM.bytes(4 * FOLDED + 17)
    for size in range(len(data) + 1):
        assert of(data[:size]) == zlib.crc32(data[:size])


def test_a_part_of_an_array_at_any_place() -> None:
    """The instructions must not ask for aligned memory."""
    data = np.frombuffer(RANDOM.bytes(1000), np.uint8)
    for start in range(17):
        assert crc32(data[start:]) == zlib.crc32(data[start:].tobytes())


def test_the_tables_alone_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without carry-less multiplication; uncompiled, so that it is seen."""
    monkeypatch.setattr(module, "MULTIPLIES", False)
    for size in (0, 1, 15, 16, 63, 64, 200):
        data = RANDOM.bytes(size)
        assert of(data, crc32.py_func) == zlib.crc32(data)


def test_the_powers_are_the_published_ones() -> None:
    """Of Intel's paper, as zlib's and Linux' code have them too."""
    assert [*module.BY_64_BYTES, *module.BY_16_BYTES] == [
        0x154442BD4,
        0x1C6E41596,
        0x1751997D0,
        0x0CCAA009E,
    ]


def test_the_fast_way_is_taken_where_there_is_one() -> None:
    assert bool(binding.get_host_cpu_features().get("pclmul")) == module.MULTIPLIES
