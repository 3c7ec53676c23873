"""Files past the page cache, and through it where the file system knows no other way."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from prep.direct import BLOCK, aligned, open_direct


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK + 1, 5 << 20])
def test_memory_is_aligned_and_can_be_written(size: int) -> None:
    memory = aligned(size)
    memory[:] = 7
    assert len(memory) == size
    assert memory.ctypes.data % BLOCK == 0


def test_memory_is_not_shared_with_a_forked_process() -> None:
    memory = aligned(8)
    if (child := os.fork()) == 0:
        memory[:] = 1
        os._exit(0)
    os.waitpid(child, 0)
    assert not memory.any()


def test_a_file_is_opened_past_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BLOCK))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("the tests' folder is on a file system that has no such files")
    file = open_direct(path)
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    os.close(file)
    assert flags & os.O_DIRECT


def test_what_is_written_past_the_cache_is_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * BLOCK))
    memory = aligned(BLOCK)
    memory[:] = np.arange(BLOCK) % 251
    file = open_direct(path)
    try:
        assert os.pwrite(file, memory.data, BLOCK) == BLOCK
        found = aligned(BLOCK)
        assert os.preadv(file, [found.data], BLOCK) == BLOCK
    finally:
        os.close(file)
    assert np.array_equal(found, memory)
    assert path.read_bytes() == bytes(BLOCK) + memory.tobytes() + bytes(BLOCK)


@pytest.mark.parametrize("refused", ["open", "read"])
def test_a_file_system_without_it_is_taken_as_it_is(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"any size")
    real_open = os.open

    def refusing_open(name: Path, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct files here")
        return real_open(name, flags)

    def refusing_read(*_: object) -> int:
        raise OSError(errno.EINVAL, "not of this size")

    if refused == "open":
        monkeypatch.setattr(os, "open", refusing_open)
    else:
        monkeypatch.setattr(os, "preadv", refusing_read)
    before = open_files()
    file = open_direct(path)
    try:
        assert open_files() == before + 1
        assert os.pwrite(file, b"odd", 1) == 3
    finally:
        os.close(file)
    assert path.read_bytes() == b"aodd" + b"size"


def test_a_disk_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BLOCK))

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match="the disk is broken"):
        open_direct(path)
