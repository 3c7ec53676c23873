"""Runs work units on worker processes of this machine (joblib) or of a Dask cluster.

A unit is a few seconds of work: a picklable value that a module-level function turns into a
picklable result. Units are idempotent; results arrive in any order.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from prep.program import UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def worker_count(jobs: int | None) -> int:
    """The number of worker processes: `jobs`, or every core this process may use."""
    import joblib

    return jobs if jobs is not None else int(joblib.cpu_count())


def run_units(
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    jobs: int | None,
    dask: str | None = None,
) -> Iterator[Result]:
    """Yield function(unit) for every unit, in order of completion, from `jobs` processes.

    With one job the units run in this process. `dask` is the address of a scheduler, whose workers
    run them instead. An exception in a worker is raised here.
    Raises UserError when a worker process dies (on a cluster: when a unit killed several).
    """
    if dask is not None:
        from prep.cluster import run_on_dask

        yield from run_on_dask(function, units, dask)
        return
    workers = worker_count(jobs)
    if workers == 1:
        yield from map(function, units)
        return
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # A run that ends early has unused results; that is no news to a person who pressed Ctrl-C.
    warnings.filterwarnings("ignore", message=r".*tasks? .*been", category=UserWarning)
    parallel: Any = joblib.Parallel(
        n_jobs=workers, return_as="generator_unordered", initializer=_ignore_ctrl_c
    )
    try:
        with _ctrl_c_ignored():  # inherited by the workers that start here
            results = parallel(joblib.delayed(function)(unit) for unit in units)
        yield from results
    except TerminatedWorkerError as error:
        raise UserError(
            f"one of {workers} worker processes died (killed, or out of memory); run the same "
            "command again to go on, with a smaller --jobs if memory was short"
        ) from error


def _ignore_ctrl_c() -> None:
    """A terminal sends Ctrl-C to the workers too; the parent ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
