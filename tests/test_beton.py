"""The file format: FFCV's own dtypes, the page rule, and FFCV's own loader reading our file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep import beton, write
from prep.beton import PAGE_SIZE, Layout, open_beton, plan_layout
from prep.images import decode_as_ffcv
from prep.prepared import open_prepared
from prep.program import UserError


@pytest.fixture
def copy(betons: Path, tmp_path: Path) -> Path:
    """train.beton alone, which a test may change."""
    path = tmp_path / "train.beton"
    path.write_bytes((betons / "train.beton").read_bytes())
    return path


def overwrite(path: Path, offset: int, dtype: str, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.array(value, dtype).tobytes())


# --------------------------------------------------------------------------- FFCV's format


def test_the_dtypes_are_ffcv_s() -> None:
    from ffcv import types
    from ffcv.fields import IntField, RGBImageField

    assert types.HeaderType == beton.HEADER
    assert types.FieldDescType == beton.FIELD
    assert beton.TABLE == types.ALLOC_TABLE_TYPE
    assert types.CURRENT_VERSION == beton.VERSION
    fields = [RGBImageField(), IntField()]
    assert fields[0].metadata_type == beton.IMAGE
    sample = types.get_metadata_type(fields)
    assert sample.itemsize == beton.SAMPLE.itemsize
    for name in ("f0", "f1"):
        assert sample.fields[name][1] == beton.SAMPLE.fields[name][1]  # offsets
    assert types.TYPE_ID_HANDLER[beton.IMAGE_FIELD] is RGBImageField
    assert types.TYPE_ID_HANDLER[beton.INT_FIELD] is IntField


def test_ffcv_s_reader_finds_what_ours_finds(betons: Path) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.reader import Reader

    path = betons / "train.beton"
    theirs, ours = Reader(str(path)), open_beton(path)
    assert theirs.num_samples == len(ours) == 18
    assert theirs.page_size == PAGE_SIZE
    assert {name: type(field) for name, field in theirs.handlers.items()} == {
        "image": RGBImageField,
        "label": IntField,
    }
    assert np.array_equal(theirs.metadata["f1"], ours.labels)
    assert np.array_equal(theirs.metadata["f0"]["data_ptr"], ours.layout.ptr)
    assert np.array_equal(theirs.alloc_table["ptr"], ours.layout.ptr)
    assert np.array_equal(theirs.alloc_table["size"], ours.layout.size)


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_ffcv_s_own_loader_gives_our_pixels_and_labels(
    prepared_set: Path, tmp_path: Path, mode: str
) -> None:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.decoders import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.traversal_order import Random

    path = tmp_path / "train.beton"
    write.write_beton(prepared_set / "train", path, mode, jobs=1)
    split = open_prepared(prepared_set / "train")
    files = [place.path.read_bytes() for place in split.places(0, len(split))]
    expected = np.array([decode_as_ffcv(data) for data in files])
    loader = Loader(
        str(path),
        batch_size=4,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        os_cache=True,
        pipelines={
            "image": [SimpleRGBImageDecoder(), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )

    def epoch() -> tuple[npt.NDArray[np.uint8], list[int]]:
        batches = [(images.numpy().copy(), labels.numpy().copy()) for images, labels in loader]
        assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 2]
        pixels = np.concatenate([pixels for pixels, _ in batches])
        return pixels, np.concatenate([labels for _, labels in batches]).ravel().tolist()

    pixels, labels = epoch()
    assert np.array_equal(pixels, expected)
    assert labels == split.labels.tolist()

    loader.traversal_order = Random(loader)
    pixels, labels = epoch()
    places = [int(np.flatnonzero((expected == each).all(axis=(1, 2, 3)))[0]) for each in pixels]
    assert sorted(places) == list(range(18)) != places
    assert labels == split.labels[places].tolist()


# --------------------------------------------------------------------------- the layout

sizes_lists = st.lists(
    st.integers(1, 90_000) | st.integers(1, PAGE_SIZE) | st.sampled_from([1, PAGE_SIZE]),
    max_size=60,
)


@given(sizes=sizes_lists)
def test_samples_follow_one_another_and_none_crosses_a_page(sizes: list[int]) -> None:
    layout = plan_layout(np.array(sizes, np.uint64))
    metadata = beton.METADATA_START + len(sizes) * beton.SAMPLE.itemsize
    assert layout.data_start % PAGE_SIZE == layout.table_start % PAGE_SIZE == 0
    assert metadata <= layout.data_start < metadata + PAGE_SIZE
    end = layout.data_start
    for ptr, size in zip(layout.ptr.tolist(), sizes, strict=True):
        assert ptr >= end
        assert ptr // PAGE_SIZE == (ptr + size - 1) // PAGE_SIZE
        assert ptr == end or (ptr % PAGE_SIZE == 0 and ptr - end < size)  # no room is wasted
        end = ptr + size
    assert end <= layout.table_start < end + PAGE_SIZE
    pages = list(beton.pages(layout))
    assert [page.start for page in pages] == list(
        range(layout.data_start, layout.table_start, PAGE_SIZE)
    )
    assert [sample for page in pages for sample in page.samples] == list(range(len(sizes)))
    places = [page.start + start for page in pages for start in page.bounds[:-1]]
    assert places == layout.ptr.tolist()
    assert np.concatenate([np.diff(page.bounds) for page in pages] or [[]]).tolist() == sizes
    assert layout.file_size == layout.table_start + len(sizes) * beton.TABLE.itemsize


def test_a_sample_that_just_fits_a_page_is_placed_and_a_larger_one_refused() -> None:
    assert plan_layout(np.array([PAGE_SIZE], np.uint64)).ptr[0] % PAGE_SIZE == 0
    with pytest.raises(UserError, match=r"sample 1 has 8388609 bytes, a page holds 8388608; prep"):
        plan_layout(np.array([5, PAGE_SIZE + 1], np.uint64))


def test_the_layout_of_imagenet_s_size_is_planned_in_no_time() -> None:
    """Page by page; sample by sample takes seconds and a list of 1,281,167 Python integers."""
    sizes = np.random.default_rng(0).integers(15_000, 45_000, 1_281_167).astype(np.uint64)
    started = time.perf_counter()
    layout = plan_layout(sizes)
    count = sum(len(page.samples) for page in beton.pages(layout))
    assert time.perf_counter() - started < 1
    assert count == len(sizes)
    assert layout.file_size > 38_000_000_000


def test_many_samples_have_their_metadata_before_the_pages() -> None:
    count = 400_000
    layout = plan_layout(np.full(count, 6_000, np.uint64))
    assert layout.data_start >= beton.METADATA_START + count * 24
    assert (np.diff(layout.ptr.astype(np.int64)) >= 6_000).all()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_head_and_table_have_the_planned_places(count: int, tmp_path: Path) -> None:
    layout = plan_layout(np.arange(1, count + 1, dtype=np.uint64))
    labels = np.arange(count, dtype=np.int64) * 1000
    head = beton.head(layout, labels, 77, "raw")
    assert len(head) == layout.data_start
    path = tmp_path / "x.beton"
    path.write_bytes(head.ljust(layout.table_start, b"\0") + beton.table(layout))
    opened = open_beton(path)
    assert np.array_equal(opened.labels, labels)
    assert np.array_equal(opened.layout.ptr, layout.ptr)
    assert np.array_equal(opened.layout.size, layout.size)
    assert (opened.layout.table_start, opened.layout.file_size) == (
        layout.table_start,
        layout.file_size,
    )
    assert set(opened.modes.tolist()) <= {1}
    assert set(opened.widths.tolist()) | set(opened.heights.tolist()) <= {77}


# --------------------------------------------------------------------------- opening


def test_a_table_in_another_order_is_understood(copy: Path) -> None:
    """FFCV's own writer leaves the table in the order in which its workers ended."""
    opened = open_beton(copy)
    table = np.fromfile(copy, beton.TABLE, offset=opened.layout.table_start)
    with copy.open("r+b") as file:
        file.seek(opened.layout.table_start)
        file.write(table[::-1].tobytes())
    assert np.array_equal(open_beton(copy).layout.size, opened.layout.size)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 3000, bytes(3000), b"\2\0\2\0" + bytes(50)])
def test_what_is_no_beton_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.beton").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.beton"):
        open_beton(tmp_path / "x.beton")


def test_a_missing_beton_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.beton does not exist"):
        open_beton(tmp_path / "x.beton")


def test_another_version_is_refused(copy: Path) -> None:
    overwrite(copy, 0, "<u2", 3)
    with pytest.raises(UserError, match="has beton version 3, this program reads 2"):
        open_beton(copy)


def test_other_fields_are_refused(copy: Path) -> None:
    overwrite(copy, beton.HEADER.itemsize, "u1", 4)
    with pytest.raises(UserError, match=r"of types \[4, 1\], expected image and label"):
        open_beton(copy)
    overwrite(copy, 2, "<u2", 3)
    with pytest.raises(UserError, match="it has no fields image and label"):
        open_beton(copy)


@pytest.mark.parametrize("kept", [0.0001, 0.1, 0.6, 0.999999])
def test_a_beton_cut_short_is_refused(copy: Path, kept: float) -> None:
    with copy.open("r+b") as file:
        file.truncate(int(copy.stat().st_size * kept))
    with pytest.raises(UserError, match="cut short"):
        open_beton(copy)


def test_a_longer_file_is_refused(copy: Path) -> None:
    with copy.open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"bytes, its header says"):
        open_beton(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_samples", 2**63), ("num_samples", 19), ("num_samples", 0), ("alloc_table_ptr", 2**62)],
)
def test_an_impossible_header_is_refused(copy: Path, field: str, value: int) -> None:
    assert beton.HEADER.fields is not None
    overwrite(copy, beton.HEADER.fields[field][1], "<u8", value)
    with pytest.raises(UserError, match=r"train\.beton"):
        open_beton(copy)


def table_offset(opened_layout: Layout, sample: int, field: str) -> int:
    assert beton.TABLE.fields is not None
    offset: int = beton.TABLE.fields[field][1]
    return opened_layout.table_start + sample * beton.TABLE.itemsize + offset


@pytest.mark.parametrize("size", [2**64 - 1, 2**63, PAGE_SIZE * 9])
def test_a_record_that_ends_outside_the_pages_is_named(copy: Path, size: int) -> None:
    overwrite(copy, table_offset(open_beton(copy).layout, 5, "size"), "<u8", size)
    with pytest.raises(UserError, match=r"sample 5 lies outside the file's pages"):
        open_beton(copy)


@pytest.mark.parametrize("ptr", [0, 8, 2**63])
def test_a_record_that_begins_outside_the_pages_is_named(copy: Path, ptr: int) -> None:
    layout = open_beton(copy).layout
    overwrite(copy, table_offset(layout, 5, "ptr"), "<u8", ptr)
    with pytest.raises(UserError, match=rf"sample 5 lies at .* and at {ptr} by the allocation"):
        open_beton(copy)
    place = beton.METADATA_START + 5 * beton.SAMPLE.itemsize + 5  # after mode, width, height
    overwrite(copy, place, "<u8", ptr)
    with pytest.raises(UserError, match=r"sample 5 lies outside the file's pages"):
        open_beton(copy)


@pytest.mark.parametrize("name", [4, 18, 2**64 - 1])
def test_a_table_that_names_a_sample_twice_or_a_strange_one_is_refused(
    copy: Path, name: int
) -> None:
    overwrite(copy, table_offset(open_beton(copy).layout, 5, "sample_id"), "<u8", name)
    with pytest.raises(UserError, match="does not name every sample once"):
        open_beton(copy)
