"""Tars read in place: where each member lies, and whether the archive is whole.

Nothing is unpacked and no name in an archive is used as a path. Python's tarfile takes a damaged
header for the end of the archive; here that is an error.
"""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from prep.images import MAX_BYTES, too_many_bytes
from prep.sources.listing import Listing, Picture

BLOCK = 512  # bytes of a tar's header
READ_AHEAD = 1 << 20  # bytes
NOT_REGULAR = -1  # the size of what is no file and cannot be read


class DamagedArchiveError(Exception):
    """The archive is not whole; the message says where."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A regular file in a tar, or something else, which is not to be read."""

    name: str
    offset: int  # bytes from the file's start
    size: int  # bytes
    regular: bool  # not a link, a device or a folder
    folder: bool


class _Window(io.RawIOBase):
    """`size` bytes of an open file from `start`, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seek from elsewhere than the start")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._position, 0)
        size = left if size is None or size < 0 else min(size, left)
        if size > MAX_BYTES:  # a header that claims a name or comment of gigabytes
            raise tarfile.ReadError(f"a header of {size} bytes")
        self._file.seek(self._start + self._position)
        data = self._file.read(size)
        self._position += len(data)
        return data


def members(file: BinaryIO, start: int, size: int) -> Iterator[Member]:
    """The members of the tar that fills `size` bytes of `file` from `start`, in their order.

    Raises DamagedArchiveError when it ends before its end-of-archive mark.
    """
    window = _Window(file, start, size)
    offset = 0
    try:
        with tarfile.open(fileobj=window, mode="r:", errors="surrogateescape") as archive:
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else memory grows
                if found.size < 0 or archive.offset <= offset:
                    raise tarfile.ReadError(f"a member of {found.size} bytes")
                offset = archive.offset
                yield Member(
                    found.name,
                    start + found.offset_data,
                    found.size,
                    found.isreg() and not found.issparse(),
                    found.isdir(),
                )
            offset = archive.offset
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise DamagedArchiveError(f"is damaged or cut short at byte {offset} ({error})") from error
    window.seek(offset)
    mark = window.read(BLOCK)
    if not mark:
        raise DamagedArchiveError(f"is cut short: it ends at byte {offset} without its end mark")
    if mark.strip(b"\0"):
        raise DamagedArchiveError(f"is damaged at byte {offset}")
    while rest := window.read(READ_AHEAD):
        if rest.strip(b"\0"):
            raise DamagedArchiveError(
                f"has something after its end mark at byte {offset}, such as another archive"
            )


def size_of(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def read_members(root: Path, listing: Listing) -> Iterator[Picture]:
    """Pictures at known places of tars, in the listing's order."""
    opened, file = -1, None
    try:
        for name, place in zip(listing.names, listing.places, strict=True):
            label, size, container, position = place.item()
            if container != opened:
                if file is not None:
                    file.close()
                file = (root / listing.containers[container]).open("rb", READ_AHEAD)
                opened = container
            assert file is not None
            yield read_member(file, name, label, position, size)
    finally:
        if file is not None:
            file.close()


def read_member(file: BinaryIO, name: str, label: int, offset: int, size: int) -> Picture:
    """One picture of `size` bytes at `offset`."""
    if size == NOT_REGULAR:
        return Picture(name, label, None, "a link or device in an archive")
    if size > MAX_BYTES:
        return Picture(name, label, None, too_many_bytes(size))
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        return Picture(name, label, None, f"the archive ends {size - len(data)} bytes too early")
    return Picture(name, label, data)
