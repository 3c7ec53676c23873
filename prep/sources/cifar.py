"""CIFAR-10 as distributed for Python: cifar-10-batches-py/ with data_batch_1..5 and test_batch.

A batch is a pickle of a dictionary: b"data", uint8 [N,3072], red, green and blue planes of 32x32,
b"labels" and b"filenames" (https://www.cs.toronto.edu/~kriz/cifar.html). A pickle may run any
code, so these are read by an unpickler that knows numpy arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.images import MAX_BYTES, too_many_bytes
from prep.program import UserError
from prep.sources.listing import Listing, ListingBuilder, Picture, Source, Split

SIDE = 32  # pixels
FOLDER = "cifar-10-batches-py"
BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
META = "batches.meta"


def find_cifar(root: Path) -> Source | None:
    """The data set in `root` or in its folder cifar-10-batches-py; None when it is not there."""
    folder = next((f for f in (root, root / FOLDER) if (f / META).is_file()), None)
    if folder is None:
        return None
    below = folder.relative_to(root)
    names = _load(folder / META).get(b"label_names")
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise UserError(f"{folder / META} holds no label_names; unpack the archive again")
    splits = {}
    for split, batches in BATCHES.items():
        files = tuple(str(below / batch) for batch in batches if (folder / batch).is_file())
        if not files:
            continue
        builder = ListingBuilder(files)
        for container, file in enumerate(files):
            batch = Batch(root / file, len(names))
            for row, (name, label) in enumerate(zip(batch.names, batch.labels, strict=True)):
                builder.add(f"{file}/{name}", label, 3 * SIDE**2, container, row)
        contents = tuple(_sha256(root / file) for file in files)
        splits[split] = Split(builder.build(), read_rows, contents=contents)
    if not splits:
        raise UserError(f"{folder} holds {META} but no batches; unpack the archive again")
    classes = tuple(_text(name) for name in names)
    return Source(root, "CIFAR-10, Python pickles", classes, classes, splits, data_set="cifar-10")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_rows(root: Path, listing: Listing) -> Iterator[Picture]:
    """Rows of batches as PPM files: a header and red, green, blue pixel by pixel."""
    opened, pixels = -1, np.empty(0, np.uint8)
    header = b"P6 %d %d 255\n" % (SIDE, SIDE)
    for name, place in zip(listing.names, listing.places, strict=True):
        label, _, container, row = place.item()
        if container != opened:
            pixels, opened = Batch(root / listing.containers[container]).pixels, container
        planes = pixels[row].reshape(3, SIDE, SIDE)
        yield Picture(name, label, header + planes.transpose(1, 2, 0).tobytes())


class Batch:
    """One pickle: pixels uint8 [N,3072], labels and file names."""

    def __init__(self, path: Path, classes: int = 256) -> None:
        values = _load(path)
        pixels = values.get(b"data")
        labels = values.get(b"labels")
        names = values.get(b"filenames")
        if not (
            isinstance(pixels, np.ndarray)
            and pixels.dtype == np.uint8
            and pixels.ndim == 2
            and pixels.shape[1] == 3 * SIDE**2
            and isinstance(labels, list)
            and isinstance(names, list)
            and len(labels) == len(names) == len(pixels)
            and all(isinstance(label, int) and 0 <= label < classes for label in labels)
            and all(map(_is_name, names))
        ):
            raise UserError(
                f"{path} is no batch of CIFAR-10 (data uint8 [N,{3 * SIDE**2}], labels, "
                "filenames); unpack the archive again"
            )
        self.pixels: npt.NDArray[np.uint8] = pixels
        self.labels: list[int] = labels
        self.names = [_text(name) for name in names]


class _ArraysOnly(pickle.Unpickler):
    """Knows how numpy arrays are put together, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: object, shape: object, _: object) -> npt.NDArray[np.int8]:
    """What a pickled array begins with, before its state gives dtype, shape and data."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array that begins otherwise than numpy's do")
    return np.ndarray((0,), np.int8)


def _load(path: Path) -> dict[bytes, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: {too_many_bytes(size)}; this is no batch of CIFAR-10")
        values = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except UserError:
        raise
    except Exception as error:  # a hostile pickle fails in nearly any way
        raise UserError(
            f"{path} cannot be read as a batch of CIFAR-10 ({error}); unpack the archive again"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no dictionary; unpack the archive again")
    return values


def _is_name(value: object) -> bool:
    return isinstance(value, (bytes, str))


def _text(name: bytes | str) -> str:
    """A name as Python has those of files: bytes that are no UTF-8 escaped one by one."""
    data = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
    return data.decode("utf-8", "surrogateescape")
