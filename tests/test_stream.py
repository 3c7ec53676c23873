"""Samples written as they are made lie where the layout of the whole beton has them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep import beton, stream
from prep.beton import plan_layout
from prep.program import UserError
from prep.stream import LostSamplesError, SampleStream

PAGE = 1000


@pytest.fixture(autouse=True, scope="module")
def small_pages() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(beton, "PAGE_SIZE", PAGE)
    patch.setattr(stream, "PAGE_SIZE", PAGE)
    yield None
    patch.undo()


def jpegs(sizes: list[int], start: int = 0) -> bytes:
    """Samples of these sizes, each of one byte value that is not zero."""
    return b"".join(bytes([1 + (start + n) % 255]) * size for n, size in enumerate(sizes))


def expected(sizes: list[int]) -> bytes:
    layout = plan_layout(np.array(sizes, np.uint64))
    whole = bytearray(layout.table_start)
    for n, (ptr, size) in enumerate(zip(layout.ptr.tolist(), sizes, strict=True)):
        whole[ptr : ptr + size] = jpegs([size], n)
    return bytes(whole)


@given(
    units=st.lists(st.lists(st.integers(1, PAGE), max_size=9), min_size=1, max_size=6),
    killed=st.integers(0, 6),
    guess=st.sampled_from([0, 1, 500]),
)
@settings(max_examples=60)
def test_samples_lie_by_the_layout_whatever_was_killed_or_guessed(
    units: list[list[int]], killed: int, guess: int
) -> None:
    sizes = [size for unit in units for size in unit]
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "beton", Path(name) / "out"
        samples = SampleStream(path, guess or len(sizes), [])
        for number, unit in enumerate(units):
            first = sum(map(len, units[:number]))
            if number == killed:  # after writing this unit, which nobody noted
                samples.append(b"\xff" * sum(unit), unit)
                samples.close()
                samples = SampleStream(path, guess or len(sizes), sizes[:first])
            samples.append(jpegs(unit, first), unit)
        samples.make_durable()
        layout = plan_layout(np.array(sizes, np.uint64))
        samples.link(out, layout.data_start)
        samples.close()
        found = out.read_bytes()[layout.data_start :]
    assert (
        found.ljust(layout.table_start - layout.data_start, b"\0")
        == (expected(sizes)[layout.data_start :])
    )


def test_a_stream_that_lost_samples_is_told(tmp_path: Path) -> None:
    samples = SampleStream(tmp_path / "beton", 3, [])
    samples.append(jpegs([10, 20, 30]), [10, 20, 30])
    samples.close()
    SampleStream(tmp_path / "beton", 3, [10, 20, 30]).close()
    with pytest.raises(LostSamplesError, match="ends before its 4 samples do"):
        SampleStream(tmp_path / "beton", 3, [10, 20, 30, 1])


def test_a_sample_larger_than_a_page_is_refused(tmp_path: Path) -> None:
    samples = SampleStream(tmp_path / "beton", 3, [])
    with pytest.raises(UserError, match=r"has 1001 bytes, a page holds 1000; .*--quality"):
        samples.append(jpegs([PAGE + 1]), [PAGE + 1])
    samples.close()


def test_where_there_are_no_links_the_file_itself_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    samples = SampleStream(tmp_path / "beton", 1, [])
    samples.append(jpegs([10]), [10])
    (tmp_path / "out").write_bytes(b"left by another run")
    samples.link(tmp_path / "out", beton.data_start(1))
    samples.close()
    assert (tmp_path / "out").read_bytes().endswith(jpegs([10]))
    assert not (tmp_path / "beton").exists()
