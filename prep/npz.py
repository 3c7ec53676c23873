"""Named arrays in one file (.npz), with a checksum of their own.

A zip has a checksum of each array, which is compared once an array is read to its end. How far that
is stands in the array's own header, so that one flipped bit in a shape gives another array and no
error. Here the names, dtypes, shapes and bytes of all arrays have a checksum together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.files import check_regular, reason
from prep.program import UserError

if TYPE_CHECKING:  # half the time of `prep --help` otherwise
    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]

CHECKSUM = "sha256"  # the array that holds it

# Of arrays by name: numpy's code of the dtype without the byte order ("f4"; "U": a text of any
# length), and the number of dimensions.
Forms = Mapping[str, tuple[str, int]]


def save(path: Path, values: Mapping[str, Any]) -> None:
    """Write arrays, numbers and texts with their checksum; the same ones give the same bytes."""
    import numpy as np

    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    arrays[CHECKSUM] = np.asarray(checksum(arrays))
    with path.open("wb") as out:
        np.savez(out, **arrays)


def read(path: Path, forms: Forms, remedy: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file, those of `forms` among them; `is_whole` tells whether nothing changed.

    Raises UserError, which ends in `remedy`, when the file is missing or damaged, or is none.
    """
    import numpy as np

    try:
        check_regular(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {remedy}") from error
    except Exception as error:  # zipfile and numpy answer damage with nearly any exception
        raise UserError(f"{path} is damaged ({reason(error)}); {remedy}") from error
    for name, (dtype, dimensions) in forms.items():
        if name not in arrays:
            raise UserError(f"{path} lacks {name!r}; {remedy}")
        array = arrays[name]
        if not array.dtype.str[1:].startswith(dtype) or array.ndim != dimensions:
            raise UserError(f"{path} is damaged ({name} is {array.dtype} {array.shape}); {remedy}")
    return arrays


def is_whole(arrays: Arrays) -> bool:
    """Whether arrays are those that `save` had: their checksum is with them."""
    others = {name: array for name, array in arrays.items() if name != CHECKSUM}
    return CHECKSUM in arrays and str(arrays[CHECKSUM]) == checksum(others)


def checksum(arrays: Arrays) -> str:
    """sha256 over the names, dtypes, shapes and bytes of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())  # in C order
    return digest.hexdigest()
