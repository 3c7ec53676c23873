"""Where the bytes of a prepared sample lie, and reading them: those of the manifest, or none."""

from __future__ import annotations

import dataclasses
import os
import zlib
from pathlib import Path

from prep.files import read_regular
from prep.program import UserError

LARGEST = 1 << 28  # bytes of a prepared picture; 4096x4096x3 have a fifth of it


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a prepared sample's bytes lie, and their checksum."""

    folder: Path  # one object for all samples: a Path takes long to pickle
    name: str  # of the file in it
    offset: int
    size: int | None  # bytes; None: the whole file
    crc32: int

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def read(self) -> bytes:
        """The bytes, whatever they are. Raises OSError, for a pipe too, which keeps nobody waiting.

        File objects and Paths would double the time.
        """
        name = f"{self.folder}/{self.name}"
        if self.size is None:
            return read_regular(name, LARGEST)
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)


def read_unchanged(place: Place) -> bytes:
    """The bytes of a prepared sample. Raises UserError when they are not those of the manifest."""
    try:
        data = place.read()
    except OSError as error:
        raise cannot_read(place, error) from error
    if zlib.crc32(data) != place.crc32:
        raise has_changed(place)
    return data


class LostSampleError(UserError):
    """A prepared sample is not there, or is another one than the manifest says."""


def cannot_read(place: Place, error: OSError) -> LostSampleError:
    return LostSampleError(
        f"{place.path} cannot be read: {error.strerror}; remove this prepared set and run "
        "`prep resize` again"
    )


def has_changed(place: Place) -> LostSampleError:
    return LostSampleError(
        f"{place.path} has changed since it was prepared (crc32 differs from the manifest); "
        "remove this prepared set and run `prep resize` again"
    )
