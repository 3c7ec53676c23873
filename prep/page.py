"""One page of a beton: filled from prepared files, written, read back and checked.

The read-back comes from the disk where the file system allows that (prep.direct): it shows that the
file holds what was meant, every record where the layout says. Files, checksums and decoding leave
Python to other threads meanwhile.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
import zlib

import numpy as np
import numpy.typing as npt

from prep import images
from prep.beton import Page
from prep.files import read_at, write_at
from prep.place import Place, cannot_read, has_changed
from prep.prepared import PreparedSplit
from prep.program import UserError
from prep.scratch import scratch


@dataclasses.dataclass(frozen=True)
class Target:
    """The beton that is being written, and of what."""

    file: int  # descriptor of NAME.beton.partial, past the page cache where it can be (prep.direct)
    split: PreparedSplit  # its samples in the beton's order
    mode: str
    decode: bool  # check that every JPEG decodes, not its frame header alone


def ensure_page(
    target: Target, page: Page, claimed: npt.NDArray[np.uint32], out: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint32], bool]:
    """Make sure that a page is in the file; `out` gets its bytes.

    out: uint8 [beton.PAGE_SIZE], aligned (prep.direct).
    claimed: the crc32s of its n samples by the journal, fewer when that does not have them all.
    Returns crc32 [n], and whether the page was there already.
    Raises UserError when a prepared file is missing or has changed, when a sample is no JPEG of
    the card's side, or when the page reads back otherwise than it was written.
    """
    records, samples = page.records(out.data), slice(page.samples.start, page.samples.stop)
    kept = len(claimed) == len(records) and _is_there(target.file, page, claimed, out)
    if kept:
        crc32 = claimed
    else:
        _fill(target, page, target.split.places(samples.start, samples.stop), out)
        write_at(target.file, out.data, page.start)
        _read_back(target.file, page, out)
        # If it went through the cache, the disk begins with it now: a tenth faster.
        os.posix_fadvise(target.file, page.start, len(out), os.POSIX_FADV_DONTNEED)
        crc32 = target.split.crc32[samples] if target.mode == "jpg" else _checksums(records)
    side = target.split.card.side
    for sample, record in zip(page.samples, records, strict=True):
        if target.mode == "jpg" and (fault := jpeg_fault(record, side, target.decode)):
            name = target.split.names[sample].as_py()
            raise UserError(f"sample {sample}, {name}, {fault}; run `prep resize` again")
    return crc32, kept


def jpeg_fault(data: memoryview, side: int, decode: bool) -> str | None:
    """What is wrong with a prepared JPEG by its frame header, and with `decode` by all of it."""
    if images.jpeg_shape(data) != (side, side, 3):
        return f"is no {side}x{side} colour JPEG"
    if decode:
        try:
            images.decode_as_ffcv(data)
        except ValueError as error:
            return f"cannot be decoded ({error})"
    return None


def _is_there(
    file: int, page: Page, claimed: npt.NDArray[np.uint32], out: npt.NDArray[np.uint8]
) -> bool:
    return (
        read_at(file, out.data, page.start) == len(out)
        and not out[page.bounds[-1] :].any()
        and np.array_equal(_checksums(page.records(out.data)), claimed)
    )


def _fill(target: Target, page: Page, places: list[Place], out: npt.NDArray[np.uint8]) -> None:
    for sample, place, record in zip(page.samples, places, page.records(out.data), strict=True):
        if target.mode == "jpg":
            _read_into(place, record)
        else:
            size = int(target.split.sizes[sample])
            record[:] = _pixels(place, size, target.split.card.side).data.cast("B")
    out[page.bounds[-1] :] = 0


def _pixels(place: Place, size: int, side: int) -> npt.NDArray[np.uint8]:
    """What FFCV would decode a prepared JPEG of `size` bytes to, uint8 [side,side,3]."""
    jpeg = scratch("prepared JPEG", size)[:size].data
    _read_into(place, jpeg)
    if fault := jpeg_fault(jpeg, side, decode=False):
        raise UserError(f"{place.path} {fault}; run `prep resize` again")
    try:
        return images.decode_as_ffcv(jpeg)
    except ValueError as error:
        raise UserError(
            f"{place.path} cannot be decoded ({error}); run `prep resize` again"
        ) from error


def _read_into(place: Place, out: memoryview) -> None:
    """Read a prepared sample, of len(out) bytes by the manifest.

    Raises UserError as place.read_unchanged, which is half as fast. A pipe in the file's place
    keeps nobody waiting.
    """
    # A byte more than a file of its own should have: one that has grown has changed.
    buffers = [out, memoryview(bytearray(1))] if place.size is None else [out]
    try:
        file = os.open(place.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            size = os.preadv(file, buffers, place.offset)
        finally:
            os.close(file)
    except OSError as error:
        raise cannot_read(place, error) from error
    if size != len(out) or zlib.crc32(out) != place.crc32:
        raise has_changed(place)


def _read_back(file: int, page: Page, out: npt.NDArray[np.uint8]) -> None:
    found = scratch("read back", len(out))
    size = read_at(file, found.data, page.start)
    if size == len(out) and np.array_equal(found.view(np.uint64), out.view(np.uint64)):
        return  # eight bytes at a time, in half the time
    differs = found[:size] != out[:size]
    place = int(differs.argmax()) if differs.any() else size
    sample = page.first + bisect.bisect_right(page.bounds[1:-1], place)
    raise UserError(
        f"sample {sample} reads back with another byte at offset {page.start + place}; the disk "
        "or memory is faulty: check it, then write again"
    )


def _checksums(records: list[memoryview]) -> npt.NDArray[np.uint32]:
    return np.array([zlib.crc32(record) for record in records], np.uint32)
