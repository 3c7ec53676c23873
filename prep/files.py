"""Files and folders that appear whole or not at all.

For both programs; the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from prep.locks import lock_or_refuse, locked
from prep.program import NO_ROOM, UserError

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system without hard links
AT_THE_END = 1 << 16  # bytes to ask for where no more should be: much memory would take 40 us


@contextlib.contextmanager
def whole_file(path: Path, resume: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    The file is on disk before it has its name. When the block raises, the temporary file is
    removed and `path` is left as it was. A second writer of the same path is refused. With
    `resume` the temporary file holds what a killed run has written into it, and Ctrl-C or a full
    disk leaves it.

    Where `path` is a symbolic link, all of this happens at its target, and the link stays: a
    beton may be given room on another disk.

    Raises UserError when another process is writing `path`, the folder cannot be written, or
    something that is no file has the name.
    """
    refuse_other_kinds(path)
    partial = partial_of(path)
    descriptor = _locked_file(partial, path)
    try:
        with naming(path):
            if not resume:
                os.ftruncate(descriptor, 0)
            yield partial
            make_durable(partial)
            partial.replace(target_of(path))
            sync_folder(partial.parent)
    except BaseException as error:
        if not (resume and _can_go_on(error)):
            partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def own_whole_file(path: Path) -> Iterator[Path]:
    """As whole_file, for a file that several processes may make at once, with the same bytes.

    Each has a temporary file of its own, so that none waits for another, no machine has to see
    another's locks, and whoever comes last replaces what is there by its equal.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with naming(path):
            yield partial
            make_durable(partial)
            partial.replace(path)
            sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_first(path: Path, text: str) -> None:
    """Write a small file, unless it is there: of several processes, the first one's stays."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with naming(path):
            partial.write_text(text, encoding="utf-8")
            make_durable(partial)
            _link_first(partial, path)
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _link_first(partial: Path, path: Path) -> None:
    """Give a file a second name, unless that is there."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not path.exists():  # the next best thing
            partial.replace(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError of the block name `path`, where it names no file: a read or write does not.

    One that is a sentence alone, without a number, stays so: with a name it would lose that.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _can_go_on(error: BaseException) -> bool:
    """Whether the same command can go on later: it was stopped, or the disk was full."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return not isinstance(error, Exception)


def target_of(path: Path) -> Path:
    """`path`, or where it leads when it is a symbolic link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def partial_of(path: Path) -> Path:
    """The temporary file of `path`."""
    target = target_of(path)
    return target.with_name(target.name + ".partial")


def without_partial(path: Path) -> Path:
    """The temporary file of `path`, removed if a killed run has left it.

    Raises UserError when another process is writing `path`.
    """
    partial = partial_of(path)
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(partial, os.O_RDWR)
        lock_or_refuse(descriptor, path)
        try:
            partial.unlink()
        finally:
            os.close(descriptor)
    return partial


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; rename it to `out` when the block ends well.

    When the block raises, the folder is removed. What a killed run left in it is removed first.
    Raises UserError when `out` is in use, is being written or cannot be written.
    """
    _refuse_used(out)
    partial = out.with_name(out.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _cannot_write(out, error) from error
    lock_or_refuse(descriptor, out)
    try:
        _refuse_used(out)  # again: another run may have ended between the check and the lock
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield partial
        partial.replace(out)
        sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def read_regular(path: Path | str, limit: int = 1 << 24) -> bytes:
    """The bytes of a file.

    Raises OSError as open() does, for a pipe or a device, which could keep us waiting, and for a
    file of more than `limit` bytes, which may have grown since somebody looked.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        _check_kind(about.st_mode, path)
        data = os.read(descriptor, min(about.st_size, limit) + 1)
        while len(data) <= limit and (
            more := os.read(descriptor, min(limit + 1 - len(data), AT_THE_END))
        ):
            data += more
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
        return data
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> None:
    """Raises OSError, as read_regular, for what is no file or is not there."""
    _check_kind(path.stat().st_mode, path)


def _check_kind(mode: int, path: Path | str) -> None:
    if kind := _other_kind(mode):
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def reason(error: Exception) -> str:
    """What an error says, without the number and the path that an OSError's text has."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def refuse_other_kinds(path: Path) -> None:
    """Raises UserError when `path`, where a file is to be written, is there and is none."""
    try:
        kind = _other_kind(path.stat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(path, error) from error
    if kind:
        raise UserError(f"cannot write {path}: it is {kind}; remove it, or give another name")


def _other_kind(mode: int) -> str:
    """What a thing in a file system is, when it is no file."""
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def write_at(file: int, data: memoryview, offset: int) -> None:
    """Write all of `data` into an open file: a nearly full disk takes a part before it refuses."""
    written = 0
    while written < len(data):
        some = os.pwrite(file, data[written:], offset + written)
        if some == 0:
            raise OSError(errno.EIO, "it takes no more bytes, and does not say why")
        written += some


def read_at(file: int, out: memoryview, offset: int) -> int:
    """Fill `out` from an open file; returns how many bytes that took, fewer at the file's end."""
    read = 0
    while read < len(out) and (some := os.preadv(file, [out[read:]], offset + read)):
        read += some
    return read


def make_durable(path: Path) -> None:
    """Have a file's bytes on the disk."""
    with path.open("rb+") as written:
        os.fsync(written.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked_file(partial: Path, path: Path) -> int:
    """Open `partial`, locked by this process; the lock dies with the process."""
    try:
        return locked(partial, path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(out: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {out}: {error.strerror}; give a folder that exists and can be written"
    )


def _refuse_used(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty; give a new folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a new folder")
