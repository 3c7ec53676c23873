"""What prep hands to train: file names, dtypes, versions.

Owned by prep, imported by train; numpy and the standard library only.

A prepared set is `OUT/<split>/` (images), `OUT/<split>.parquet` (manifest), `OUT/<split>.json`
(card) and `OUT/train.stats.npz`. A beton `DIR/NAME.beton` has beside it `NAME.json` (card),
`NAME.records.npz` (pointer, size and crc32 of every sample) and `NAME.stats.npz` (statistics of
the training split).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # half the time of `prep --help` otherwise
    import numpy as np
    import numpy.typing as npt

FORMAT_VERSION = 1
INTERRUPTED = 130  # exit code after Ctrl-C, 128 + SIGINT


class UserError(Exception):
    """Something the user can mend. The message is one line: the value, the limit, the next step."""


def run_program(name: str, program: Callable[[list[str]], object]) -> NoReturn:
    """Run a command-line program on sys.argv and exit: 0, or 1 with one line on standard error.

    `--debug` anywhere on the command line shows the traceback instead of the line.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        program(arguments)
    except (UserError, OSError) as error:
        if debug:
            raise
        _print_failure(name, _message(error))
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _print_failure(
            name, f"{text}; a fault of this program: run again with --debug and report what it says"
        )
        sys.exit(1)
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            _print_failure(name, "interrupted; the same command carries on or starts anew")
        raise
    sys.exit(0)


def _print_failure(name: str, message: str) -> None:
    print(f"{name}: {' '.join(message.splitlines())}", file=sys.stderr)


def _message(error: UserError | OSError) -> str:
    if isinstance(error, UserError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        advice = "make room, then run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "give a place that this user may read and write"
    else:
        advice = "run again with --debug to see where it happened"
    return f"{where}{error.strerror or error}; {advice}"


def png_path(path: Path | None) -> Path | None:
    """Check the value of a --png option before any work is done. Raises UserError."""
    if path is not None and path.suffix.lower() != ".png":
        raise UserError(f"--png {path}: the name should end in .png")
    if path is not None and not path.parent.is_dir():
        raise UserError(f"--png {path}: {path.parent} is not a folder; create it first")
    return path


# --------------------------------------------------------------------------- whole files


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    The file is on disk before it has its name. When the block raises, the temporary file is
    removed and `path` is left as it was. A second writer of the same path is refused.

    Raises UserError when another process is writing `path` or the folder cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    descriptor = _lock(partial, path)
    try:
        yield partial
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a write names no file
            error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _lock(partial: Path, path: Path) -> int:
    """Create `partial`, empty and locked by this process; the lock dies with the process."""
    while True:
        try:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; give a folder that exists and can be "
                "written"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(
                f"{path} is being written by another run; wait for it or give another name"
            ) from error
        # The other writer may have renamed the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == partial.stat().st_ino:
                os.ftruncate(descriptor, 0)
                return descriptor
        os.close(descriptor)


@contextlib.contextmanager
def only_run(lock: Path, out: Path) -> Iterator[None]:
    """Refuse a second run that writes `out` while the block runs; the lock dies with the process.

    Raises UserError when another process holds the file `lock`.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another run is writing {out}; wait for it to end") from error
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------- card


@dataclasses.dataclass(frozen=True)
class ClassEntry:
    """One class: `wnid` is its folder's name, `name` is for people, `samples` counts this split."""

    wnid: str
    name: str
    samples: int


@dataclasses.dataclass(frozen=True)
class Card:
    """What a prepared split or a beton holds; `classes` are in label order."""

    split: str
    samples: int
    classes: tuple[ClassEntry, ...]
    side: int  # pixels
    mode: str  # "jpg" or "raw": how the bytes of a sample are stored
    quality: int  # of the prepared JPEGs, 1..100
    filter: str  # the resize filter
    fit: str  # "crop": shorter side to `side`, centre crop
    source: str  # sha256 over the listing of the originals
    pixels_id: str  # see pixels_id()
    sha256: str | None  # of the beton; None for a prepared set
    tools: dict[str, str]  # versions of what made it
    format_version: int = FORMAT_VERSION

    @property
    def class_names(self) -> list[str]:
        return [entry.name for entry in self.classes]


def write_card(card: Card, path: Path) -> None:
    """Write `card` as JSON; the same card gives the same bytes."""
    text = json.dumps(dataclasses.asdict(card), indent=1, sort_keys=True) + "\n"
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_card(path: Path) -> Card:
    """Read a card. Raises UserError when it is missing, of another version or not a card."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: the card is written by `prep resize` and `prep write-beton`; "
            "run them again or copy the card along"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a card ({error}); make it again") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}; "
            "prepare the data again with this version"
        )
    try:
        values["classes"] = tuple(ClassEntry(**entry) for entry in values["classes"])
        return Card(**values)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a whole card ({error}); make it again") from error


def pixels_id(labels: npt.NDArray[np.int64], digests: npt.NDArray[np.uint8]) -> str:
    """Name a set of labelled images by content, whatever their names, order or container.

    labels: int64 [N]; digests: uint8 [N,32], the sha256 of each image's stored bytes.
    Returns the sha256 over the sorted (label, digest) pairs, label as 8 bytes big-endian.
    """
    import numpy as np

    pairs = np.empty((len(labels), 40), np.uint8)
    pairs[:, :8] = labels.astype(">i8").view(np.uint8).reshape(-1, 8)
    pairs[:, 8:] = digests
    ordered = np.sort(pairs.view("V40").ravel())
    return hashlib.sha256(ordered.tobytes()).hexdigest()


# --------------------------------------------------------------------------- beside a beton


def card_path(beton: Path) -> Path:
    return beton.with_suffix(".json")


def read_beton_card(beton: Path) -> Card:
    """The card beside a beton. Raises UserError as read_card, and when the write did not end."""
    card = read_card(card_path(beton))
    if card.sha256 is None:
        raise UserError(
            f"{card_path(beton)} names no sha256: the writing of {beton.name} did not end; run "
            "`prep write-beton` again"
        )
    return card


def records_path(beton: Path) -> Path:
    return beton.with_suffix(".records.npz")


def stats_path(beton: Path) -> Path:
    return beton.with_suffix(".stats.npz")


@dataclasses.dataclass(frozen=True)
class Records:
    """Where each sample's bytes lie in the beton, in sample order."""

    ptr: npt.NDArray[np.uint64]  # [N] bytes from the file's start
    size: npt.NDArray[np.uint64]  # [N] bytes
    crc32: npt.NDArray[np.uint32]  # [N] of those bytes


def write_records(records: Records, path: Path) -> None:
    import numpy as np

    with whole_file(path) as partial, partial.open("wb") as out:
        np.savez(out, ptr=records.ptr, size=records.size, crc32=records.crc32)


def read_records(path: Path) -> Records:
    """Read a records file. Raises UserError when it is missing or damaged."""
    arrays = _read_npz(path, "write the beton again with `prep write-beton`")
    try:
        return Records(ptr=arrays["ptr"], size=arrays["size"], crc32=arrays["crc32"])
    except KeyError as error:
        raise UserError(f"{path} lacks {error}; write the beton again") from error


# --------------------------------------------------------------------------- statistics


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of every pixel of the training split, RGB, 0..255.

    `eigenvectors` holds the principal axes in columns, `eigenvalues` falling; each axis has its
    largest component positive. The standard deviation along axis i is sqrt(eigenvalues[i]).
    """

    count: int  # images
    mean_image: npt.NDArray[np.float32]  # [S,S,3]
    channel_mean: npt.NDArray[np.float64]  # [3]
    covariance: npt.NDArray[np.float64]  # [3,3]
    eigenvalues: npt.NDArray[np.float64]  # [3]
    eigenvectors: npt.NDArray[np.float64]  # [3,3], columns
    decoder: str  # the JPEG decoder and its version
    pixels_id: str  # of the split that was measured

    @property
    def side(self) -> int:
        return int(self.mean_image.shape[0])

    @property
    def standard_deviations(self) -> npt.NDArray[np.float64]:
        """[3] along the principal axes, grey levels."""
        import numpy as np

        return np.sqrt(np.maximum(self.eigenvalues, 0.0))


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write statistics; the same statistics give the same bytes."""
    import numpy as np

    with whole_file(path) as partial, partial.open("wb") as out:
        arrays: dict[str, Any] = dataclasses.asdict(statistics)
        np.savez(out, format_version=np.int64(FORMAT_VERSION), **arrays)


def read_statistics(path: Path) -> Statistics:
    """Read statistics. Raises UserError when missing, damaged or of another version."""
    arrays = _read_npz(path, "run `prep stats OUT/train` and `prep write-beton` again")
    try:
        version = int(arrays["format_version"])
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this program reads {FORMAT_VERSION}; "
                "run `prep stats` again"
            )
        return Statistics(
            count=int(arrays["count"]),
            mean_image=arrays["mean_image"],
            channel_mean=arrays["channel_mean"],
            covariance=arrays["covariance"],
            eigenvalues=arrays["eigenvalues"],
            eigenvectors=arrays["eigenvectors"],
            decoder=str(arrays["decoder"]),
            pixels_id=str(arrays["pixels_id"]),
        )
    except KeyError as error:
        raise UserError(f"{path} lacks {error}; run `prep stats` again") from error


def _read_npz(path: Path, next_step: str) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {next_step}") from error
    except Exception as error:  # zipfile and numpy answer damage with nearly any exception
        raise UserError(f"{path} is damaged ({error}); {next_step}") from error
