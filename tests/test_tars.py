"""Tars read in place: every member found where it lies, every damage noticed."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import tar_bytes
from hypothesis import given
from hypothesis import strategies as st

from prep.sources import tars
from prep.sources.listing import ListingBuilder, Picture
from prep.sources.tars import DamagedArchiveError, Member, members, read_members


def list_all(data: bytes, start: int = 0) -> list[Member]:
    return list(members(io.BytesIO(data), start, len(data) - start))


@given(
    files=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120),
        st.binary(max_size=2000),
        min_size=1,
        max_size=5,
    ),
    start=st.integers(0, 3),
)
def test_every_member_is_found_where_it_lies(files: dict[str, bytes], start: int) -> None:
    data = b"?" * start + tar_bytes(files)
    found = list_all(data, start)
    assert {m.name: data[m.offset : m.offset + m.size] for m in found} == files
    assert all(m.regular and not m.folder for m in found)


def test_a_tar_within_a_tar_is_read_in_place() -> None:
    inner = tar_bytes({"a.jpg": b"aa", "b.jpg": b"bbb"})
    data = tar_bytes({"n1.tar": inner, "n2.tar": inner})
    for outer in list_all(data):
        found = list(members(io.BytesIO(data), outer.offset, outer.size))
        assert [data[m.offset : m.offset + m.size] for m in found] == [b"aa", b"bbb"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_not_regular(kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    link, folder_member = list_all(out.getvalue())
    assert (link.regular, link.folder) == (False, False)
    assert folder_member.folder


def test_every_cut_is_noticed() -> None:
    """At whatever byte the file ends before its end mark, inside a header, data or between."""
    data = tar_bytes({"a": b"x" * 700, "b": b"y" * 100, "c": b""})
    end = 512 + 1024 + 512 + 512 + 512  # the members; the rest is the mark
    for cut in [*range(0, end, 97), 512, 1536, 2560, end]:
        with pytest.raises(DamagedArchiveError, match=r"is (damaged|cut short)"):
            list_all(data[:cut])
    assert len(list_all(data[: end + 512])) == 3


def test_a_damaged_header_is_not_taken_for_the_end() -> None:
    data = bytearray(tar_bytes({"a": b"x" * 700, "b": b"y" * 100, "c": b"z"}))
    data[512 + 1024 + 148] ^= 1  # the second header's checksum
    with pytest.raises(DamagedArchiveError, match="damaged at byte 1536"):
        list_all(bytes(data))


def test_a_header_that_claims_gigabytes_is_refused() -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    claimed = header.tobuf(tarfile.GNU_FORMAT)

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 <= size <= tars.MAX_BYTES
            return super().read(size)

    with pytest.raises(DamagedArchiveError):
        list(members(Endless(claimed + bytes(1024)), 0, 1 << 34))


def test_a_member_of_negative_size_does_not_lead_back() -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = -512
    header = member.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(DamagedArchiveError):
        list_all(header + bytes(2048))


@given(st.binary(max_size=1500))
def test_garbage_ends_with_an_error(data: bytes) -> None:
    with pytest.raises(DamagedArchiveError):
        list_all(b"x" + data)


def test_memory_does_not_grow_with_the_members(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "many.tar"
    block = tar_bytes({"n01440764_1.JPEG": b""})[:512]
    path.write_bytes(block * 20_000 + bytes(1024))
    tracemalloc.start()
    with path.open("rb") as file:
        assert sum(1 for _ in members(file, 0, path.stat().st_size)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


# --------------------------------------------------------------------------- pictures


def test_pictures_are_read_from_their_places_in_several_tars(tmp_path: Path) -> None:
    contents = {"a.tar": {"1": b"one", "2": b"two"}, "b.tar": {"3": b"three"}}
    builder = ListingBuilder(tuple(contents))
    expected = []
    for container, (name, files) in enumerate(contents.items()):
        data = tar_bytes(files)
        (tmp_path / name).write_bytes(data)
        for m in list_all(data):
            builder.add(f"{name}/{m.name}", container, m.size, container, m.offset)
            expected.append(Picture(f"{name}/{m.name}", container, files[m.name]))
    listing = builder.build()
    assert list(read_members(tmp_path, listing)) == expected
    turned = listing.take(np.array([2, 0, 1]))
    assert list(read_members(tmp_path, turned)) == [expected[i] for i in (2, 0, 1)]


def test_a_picture_beyond_the_end_or_of_too_many_bytes_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(1000))
    os.truncate(tmp_path / "a.tar", 1000)
    builder = ListingBuilder(("a.tar",))
    builder.add("early", 0, 600, 0, 512)
    builder.add("huge", 0, tars.MAX_BYTES + 1, 0, 0)
    early, huge = read_members(tmp_path, builder.build())
    assert (early.data, early.reason) == (None, "the archive ends 112 bytes too early")
    assert huge.data is None
    assert "are more than" in str(huge.reason)


@pytest.mark.parametrize("rest", [tar_bytes({"b.jpg": b"second"}), b"x" * 1000])
def test_what_follows_the_end_mark_is_not_dropped(rest: bytes) -> None:
    whole = tar_bytes({"a.jpg": b"first"})
    assert [member.name for member in list_all(whole + bytes(1 << 21))] == ["a.jpg"]
    with pytest.raises(DamagedArchiveError, match="something after its end mark"):
        list_all(whole + bytes(1 << 21) + rest)


def test_a_chain_of_headers_is_damage() -> None:
    header = tarfile.TarInfo("long")
    header.type = tarfile.GNUTYPE_LONGNAME
    with pytest.raises(DamagedArchiveError, match="damaged"):
        list_all(header.tobuf() * 3000 + tar_bytes({"a.jpg": b""}))
