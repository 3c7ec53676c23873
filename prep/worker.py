"""What a Dask worker must have before it may do units: this code, and the same files.

A worker is looked at when a run begins and, as workers may join or lose a disk later, before each
of its units.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prep.code_version import code_version
from prep.program import UserError

Files = Sequence[Path]  # that the first process sees, one in each place that the units use


def refuse_unfit_workers(client: Any, files: Files) -> None:
    """Raises UserError naming a worker that has other code or does not see all `files`."""
    found: dict[str, Any] = client.run(complaint, code_version(), files, on_error="return")
    for address, answer in found.items():
        if isinstance(answer, OSError):  # it has just left
            continue
        wrong = without_prep(answer) if isinstance(answer, Exception) else answer
        if wrong:
            raise UserError(f"Dask worker {address} {wrong}")


def complaint(wanted: str, files: Files) -> str | None:
    """In a worker: what is wrong with it; None when it may do units."""
    here = code_version()
    if here != wanted:
        return (
            f"has {here}; this command has {wanted}: install the same there, start the worker "
            "again, then run the same command again"
        )
    for file in files:
        try:
            file.stat()
        except OSError as error:
            return (
                f"does not see {file} ({error.strerror}), which this command does; mount it there "
                "under the same path, then run the same command again"
            )
    return None


def without_prep(error: Exception) -> str:
    """What is wrong with a worker that could not even begin to look."""
    return (
        f"could not load this command's code ({type(error).__name__}: {error}); this command has "
        f"{code_version()}: install the same there, start the worker again, then run the same "
        "command again"
    )


def do_if_fit(work: bytes, wanted: str, files: Files) -> Any:
    """In a worker: do a pickled (function, unit) after a look. Raises UserError as above."""
    if wrong := complaint(wanted, files):
        from distributed import get_worker

        raise UserError(f"Dask worker {get_worker().address} {wrong}")
    function, unit = pickle.loads(work)
    return function(unit)
