"""From samples' numbers to their pixels, each record checked: what the loader's threads do.

Takes the places, sizes and crc32s of a beton's records and a batch's sample indices [B]; fills
uint8 [B,S,S,3] RGB, or float32 [B,crop,crop,3], augmented. Every thread of numba reads a record
(pread), compares its crc32, and decodes it with FFCV's own function, so that the pixels are those
of FFCV's decoder, which itself would take a damaged record for stale pixels, and a file that became
shorter for a crash. Where it also augments, it does so at once, while its core's cache still has
the pixels. The kernels are kept on disk once they are compiled.

The functions called by address, imdecode of FFCV and pread of the C library, go by name: that is
what lets numba keep a kernel that calls them.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from ffcv import libffcv
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from llvmlite import binding
from numba import njit, prange, types
from numba.np.ufunc import parallel

from prep.handover import Records
from prep.program import UserError
from train import augment as augmenting
from train import colour, philox
from train import crc32 as checksum
from train.augment import Augment, Tables, augment_image
from train.crc32 import crc32
from train.kept import made_of

# What became of a sample.
WAITING, READ, UNREADABLE, CUT_SHORT, DAMAGED, UNDECODABLE = range(6)

ADVISES = hasattr(os, "posix_fadvise")  # not macOS
WILL_NEED = getattr(os, "POSIX_FADV_WILLNEED", 0)

binding.add_symbol("ffcv_imdecode", ctypes.cast(libffcv.lib.imdecode, ctypes.c_void_p).value)
thread_number: Any = parallel.get_thread_id
_pread: Any = types.ExternalFunction(  # of file, memory, bytes, offset
    "pread", types.intp(types.int32, types.uintp, types.uintp, types.int64)
)
_advise: Any = types.ExternalFunction(  # of file, offset, bytes, advice
    "posix_fadvise", types.int32(types.int32, types.int64, types.int64, types.int32)
)
_imdecode: Any = types.ExternalFunction(  # of a JPEG and pixels: addresses, bytes, sides; a crop
    "ffcv_imdecode",
    types.int32(types.uintp, types.uint64, *2 * [types.uint32], types.uintp, *8 * [types.uint32]),
)


class Stored(NamedTuple):
    """Where and how the N samples of a file lie."""

    file: int  # a descriptor
    ptr: npt.NDArray[np.uint64]  # [N], offsets
    size: npt.NDArray[np.uint64]  # [N], bytes
    crc32: npt.NDArray[np.uint32]  # [N]
    raw: bool  # as pixels; else as JPEGs


@njit(parallel=True, nogil=True, cache=True)
@made_of(checksum)
def read_samples(
    stored: Stored,
    samples: npt.NDArray[np.int64],
    ahead: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.uint8],
    out: npt.NDArray[np.uint8],
    status: npt.NDArray[np.uint8],
) -> None:
    """Fill out [B,S,S,3] and status [B] for samples [B]; ask the system for those `ahead` [A].

    scratch: [threads, largest size].
    """
    for b in prange(len(samples)):
        if b < len(ahead):
            ask_for(stored, ahead[b])
        room = scratch[thread_number()]
        status[b] = read_sample(stored, samples[b], room, out[b])


@njit(parallel=True, nogil=True, cache=True)
@made_of(augmenting, colour, philox, checksum)
def read_augmented(
    stored: Stored,
    samples: npt.NDArray[np.int64],
    ahead: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.uint8],
    pixels: npt.NDArray[np.uint8],
    epoch: int,
    run: Tables,
    out: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
) -> None:
    """As read_samples, augmented for `epoch` (train.augment): out [B,crop,crop,3].

    pixels: [threads,S,S,3], scratch as well.
    """
    for b in prange(len(samples)):
        if b < len(ahead):
            ask_for(stored, ahead[b])
        room, image = scratch[thread_number()], pixels[thread_number()]
        status[b] = read_sample(stored, samples[b], room, image)
        if status[b] == READ:
            augment_image(image, out[b], samples[b], epoch, run)


@njit(nogil=True, cache=True)
def ask_for(stored: Stored, sample: int) -> None:
    """Tell the system that a sample is soon to be read."""
    if ADVISES:
        ptr, size = np.int64(stored.ptr[sample]), np.int64(stored.size[sample])
        _advise(stored.file, ptr, size, WILL_NEED)


@njit(nogil=True, cache=True)
@made_of(checksum)
def read_sample(
    stored: Stored, sample: int, room: npt.NDArray[np.uint8], pixels: npt.NDArray[np.uint8]
) -> int:
    """Fill pixels [S,S,3]; returns what became of it. room: for the record, if it is a JPEG."""
    side = pixels.shape[0]
    length = np.uintp(stored.size[sample])
    record = pixels.reshape(-1) if stored.raw else room
    got = _pread(stored.file, record.ctypes.data, length, np.int64(stored.ptr[sample]))
    if got < 0:
        return UNREADABLE
    if np.uintp(got) != length:
        return CUT_SHORT
    if crc32(record[:length]) != stored.crc32[sample]:
        return DAMAGED
    crop = side, side, pixels.ctypes.data, side, side, 0, 0, 1, 1, 0, 0
    if not stored.raw and _imdecode(record.ctypes.data, length, *crop) != 0:
        return UNDECODABLE
    return READ


def cached(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Memory for decoded pixels, C-contiguous, 16 bytes off a multiple of 32.

    libjpeg-turbo writes rows that begin at a multiple of 32 past the cache (its
    simd/x86_64/jdcolext-avx2.asm), from where they would have to be fetched to be augmented: a
    tenth of the loader's time. Batches of pixels are written 2 % faster like this, too.
    """
    memory = np.empty(math.prod(shape) + 32, np.uint8)
    start = (16 - memory.ctypes.data) % 32
    return memory[start : start + math.prod(shape)].reshape(shape)


class SampleError(UserError):
    """A sample that could not be had; the message names it and the file."""


class Reading(Operation):  # type: ignore[misc]
    """FFCV operation: the buffer of a batch in, the same filled with pixels out.

    With `augment`, with the augmented pixels of the epoch that it is set to.
    """

    def __init__(
        self, path: Path, records: Records, side: int, raw: bool, augment: Augment | None = None
    ) -> None:
        """Raises UserError when the mean image of `augment` is of another side."""
        super().__init__()
        if augment is not None and augment.side != side:
            raise UserError(
                f"the images are {side}x{side}, the mean image is {augment.side}x{augment.side}; "
                "use the statistics of the training data"
            )
        self.path, self.records, self._augment = path, records, augment
        threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        self._scratch = np.empty((threads, 0 if raw else int(records.size.max())), np.uint8)
        self._pixels = cached((0 if augment is None else threads, side, side, 3))
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self.file)
        self.stored = Stored(self.file, records.ptr, records.size, records.crc32, raw)
        self.samples = np.empty(0, np.int64)  # of the batch that is being read
        self.status = np.empty(0, np.uint8)
        self.ahead = np.empty(0, np.int64)  # samples that are soon to be read

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, jit_mode=False), None

    def generate_code(self) -> Callable[..., npt.NDArray[Any]]:
        augment = self._augment

        def read(
            out: npt.NDArray[Any], _: None, indices: npt.NDArray[np.integer]
        ) -> npt.NDArray[Any]:
            self.status = np.full(len(indices), WAITING, np.uint8)
            self.samples = indices.astype(np.int64)
            wanted: tuple[Any, ...] = self.stored, self.samples, self.ahead, self._scratch
            if augment is None:
                read_samples(*wanted, out, self.status)
            else:
                how: tuple[Any, ...] = self._pixels, augment.epoch, augment.tables
                read_augmented(*wanted, *how, out, self.status)
            if (self.status != READ).any():
                raise self._failure()
            return out

        code: Any = read
        code.with_indices = True
        return read

    def waiting(self) -> list[int]:
        """The samples of the batch under way that have not been read yet."""
        samples: list[int] = self.samples[self.status == WAITING].tolist()
        return samples

    def _failure(self) -> SampleError:
        place = int((self.status != READ).argmax())
        sample = int(self.samples[place])
        offset, size = int(self.records.ptr[sample]), int(self.records.size[sample])
        reason = {
            UNREADABLE: self._why_unreadable(offset),
            CUT_SHORT: "the file ends before it does",
            DAMAGED: "its crc32 is not the one that was written",
            UNDECODABLE: "it cannot be decoded",
        }[int(self.status[place])]
        return SampleError(
            f"{self.path}: sample {sample} ({size} bytes from {offset} on): {reason}; look at the "
            "file with `prep verify`, copy it again or write it again"
        )

    def _why_unreadable(self, offset: int) -> str:
        try:
            os.pread(self.file, 1, offset)
        except OSError as error:
            return str(error.strerror)
        return os.strerror(errno.EIO)


class Buffer(Operation):  # type: ignore[misc]
    """FFCV decoder that does not decode: gives the memory of a batch to the next operation."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__()
        self.shape, self.dtype = shape, np.dtype(dtype)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        state = replace(previous_state, shape=self.shape, dtype=self.dtype, jit_mode=True)
        return state, AllocationQuery(self.shape, self.dtype)

    def generate_code(self) -> Callable[..., npt.NDArray[Any]]:
        def give(indices: Any, memory: Any, *_: object) -> Any:
            return memory[: len(indices)]

        return give


class Labels(Operation):  # type: ignore[misc]
    """FFCV operation: int64 [B,2] in, filled with each sample's label and index out."""

    def __init__(self, labels: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.labels = labels  # [N]

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, jit_mode=False), None

    def generate_code(self) -> Callable[..., npt.NDArray[np.int64]]:
        def fill(
            out: npt.NDArray[np.int64], _: None, indices: npt.NDArray[np.integer]
        ) -> npt.NDArray[np.int64]:
            out[:, 0] = self.labels[indices]
            out[:, 1] = indices
            return out

        code: Any = fill
        code.with_indices = True
        return fill
