"""Originals of a few pictures, found by the manifest's column `source`, in bounded time.

A source's name begins with the path of a file in the source's folder; what follows is a name in
there: in a tar (or a tar in it, as in ImageNet's training archive), in a parquet shard, in one of
CIFAR's batches. Only the headers of a tar are read on the way, and no source is listed as a whole.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from prep.files import read_regular
from prep.images import MAX_BYTES
from prep.program import UserError
from prep.sources import cifar, parquet_rows
from prep.sources.listing import Listing, ListingBuilder, Picture
from prep.sources.tars import DamagedArchiveError, members, read_members, size_of

HEADERS = 1 << 14  # bytes that are read for a tar's header
NOT_THERE = "not in the source"
NO_TIME = "not looked for, the time for originals was over"


def read_originals(root: Path, sources: Sequence[str], seconds: float) -> Iterator[Picture]:
    """Each source's picture: its bytes, or the reason why there are none; in any order."""
    deadline = time.monotonic() + seconds
    by_file: dict[str, list[str]] = {}
    for source in dict.fromkeys(sources):
        by_file.setdefault(_file_of(root, source), []).append(source)
    for file, wanted in by_file.items():
        left = set(wanted)
        try:
            for picture in _read(root, file, wanted, deadline) if file else ():
                left.discard(picture.name)
                yield picture
        except (OSError, UserError, DamagedArchiveError) as error:
            reason = f"the source cannot be read: {error}"
        else:
            reason = NO_TIME if time.monotonic() > deadline else NOT_THERE
        for source in sorted(left):
            yield Picture(source, 0, None, reason)


def _file_of(root: Path, source: str) -> str:
    """The file, relative to `root`, that is or holds `source`; "" when there is none."""
    parts = source.split("/")
    if ".." in parts or source.startswith("/"):  # no name of ours: it would lead out of the source
        return ""
    for end in range(1, len(parts) + 1):
        file = "/".join(parts[:end])
        with contextlib.suppress(ValueError):  # a name with a zero byte
            if (root / file).is_file():
                return file
    return ""


def _read(root: Path, file: str, wanted: Sequence[str], deadline: float) -> Iterator[Picture]:
    if time.monotonic() > deadline:
        return
    if wanted == [file]:
        yield Picture(file, 0, read_regular(root / file, MAX_BYTES))
        return
    within = {source.removeprefix(f"{file}/") for source in wanted}
    if file.endswith(".tar"):
        yield from read_members(root, _in_tar(root, file, within, deadline))
    elif file.endswith(".parquet"):
        yield from parquet_rows.read_rows(root, _in_parquet(root, file, within))
    else:
        names = cifar.Batch(root / file).names
        rows = [(row, name) for row, name in enumerate(names) if _written(name) in within]
        yield from cifar.read_rows(root, _listing(file, [(name, 0, row) for row, name in rows]))


def _in_tar(root: Path, file: str, wanted: set[str], deadline: float) -> Listing:
    """Where the wanted members of a tar lie, those of tars in it too."""
    found: list[tuple[str, int, int]] = []
    with (root / file).open("rb", HEADERS) as tar:
        places = [("", 0, size_of(tar))]  # tars: what the names in it begin with, where, how large
        while places:
            before, start, size = places.pop()
            left = {name for name in wanted if name.startswith(before)}
            for member in members(tar, start, size):
                name = before + _written(member.name)
                if member.regular and name in left:
                    found.append((name, member.size, member.offset))
                    left.discard(name)
                elif member.regular and any(other.startswith(f"{name}/") for other in left):
                    places.append((f"{name}/", member.offset, member.size))
                    left = {other for other in left if not other.startswith(f"{name}/")}
                if not left or time.monotonic() > deadline:
                    break
            if time.monotonic() > deadline:
                break
    return _listing(file, found)


def _in_parquet(root: Path, file: str, wanted: set[str]) -> Listing:
    """The wanted rows, which have their picture's name or, where there is none, their number."""
    found, row = [], 0
    with parquet_rows.opened(root / file) as table:
        columns = parquet_rows.columns_of(root / file, table.schema_arrow)
        if columns.path is None:
            rows = sorted(int(name) for name in wanted if name.isdecimal())
            return _listing(file, [(f"{row:08d}", 0, row) for row in rows])
        for batch in table.iter_batches(columns=[columns.path]):
            for path in parquet_rows.image_values(batch, columns).to_pylist():
                name = path or f"{row:08d}"
                if _written(name) in wanted:
                    found.append((name, 0, row))
                row += 1
    return _listing(file, found)


def _listing(file: str, entries: Sequence[tuple[str, int, int]]) -> Listing:
    """name, bytes and place in `file` of each."""
    builder = ListingBuilder((file,))
    for name, size, place in entries:
        builder.add(f"{file}/{_written(name)}", 0, size, 0, place)
    return builder.build()


def _written(name: str) -> str:
    """As the manifest writes a name that is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
