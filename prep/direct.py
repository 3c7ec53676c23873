"""Large files written and read past the page cache, where the file system allows that.

What is written so is on the disk's way at once, and what is read back comes from the disk. Through
the cache, a beton of 38 GB would push out what other programs have there, and each of its pages
would first have to be found: on a virtual machine that cost more than all else.

Memory, offsets and sizes have to be multiples of BLOCK.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

BLOCK = 4096  # bytes; whole pages of memory, and what disks ask for
HUGE = 1 << 21  # bytes of a large page of memory
NOT_THERE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # of tmpfs, and of some over a network


def open_direct(path: Path) -> int:
    """Open a file for reading and writing past the page cache, or through it where need be.

    The file should hold at least BLOCK bytes, so that this can be tried.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_DIRECT)
        try:
            os.preadv(file, [aligned(BLOCK).data], 0)  # some refuse only then, if they have a block
        except OSError:
            os.close(file)
            raise
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return os.open(path, os.O_RDWR)
    return file


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """New memory of this process, whose address is a multiple of BLOCK."""
    # Python's default would be memory that a forked process shares.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE:
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)  # 8 MiB in 4 faults, not 2048
    return np.frombuffer(memory, np.uint8)
