"""Runs work units on worker processes of this machine (joblib) or of a Dask cluster.

A unit is a few seconds of work: a picklable value that a module-level function turns into a
picklable result. Units are idempotent; results arrive in any order.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prep.program import UserError

AHEAD = 2  # units that wait while others are under way
TRACKER_S_WARNINGS = "ignore:resource_tracker:UserWarning"
LOOK_UP = 0.2  # seconds between a worker's looks at whether its parent lives

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
    files: Sequence[Path] = (),
) -> Iterator[Result]:
    """Yield function(unit) for every unit, in order of completion, from `jobs` processes.

    With one job the units run in this process. `dask` is the address of a scheduler, whose workers
    run them instead, if they see `files`. An exception in a worker is raised here.
    Raises UserError when a worker process dies (on a cluster: when a unit killed several).
    """
    if dask is not None:
        from prep.cluster import run_on_dask

        yield from run_on_dask(function, units, dask, files)
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
        n_jobs=workers,
        return_as="generator_unordered",
        initializer=_begin_worker,
        initargs=(os.getpid(),),
    )
    try:
        with _ctrl_c_ignored(), _quiet_tracker():  # inherited by the processes that start here
            results = parallel(joblib.delayed(function)(unit) for unit in units)
        yield from results
    except TerminatedWorkerError as error:
        raise _worker_died(workers) from error


class OrderedWorkers:
    """`jobs` processes that do units for one caller after the other; to be closed.

    They start when they are first needed. With one job the units run in this process.
    """

    def __init__(self, jobs: int | None) -> None:
        self._count = worker_count(jobs)
        self._pool: Any = None
        self._processes: set[Any] = set()

    def run(self, function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
        """Yield function(unit) for every unit, in the order of the units.

        Results may be large: at most AHEAD more than there are processes are under way or waiting.
        An exception in a worker is raised here. Raises UserError when a worker process dies.
        """
        if self._count == 1:
            yield from map(function, units)
            return
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        waiting: collections.deque[Any] = collections.deque()
        try:
            for unit in units:
                waiting.append(self._submit(function, unit))
                if len(waiting) == self._count + AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except TerminatedWorkerError as error:
            raise _worker_died(self._count) from error

    def _submit(self, function: Callable[[Unit], Result], unit: Unit) -> Any:
        """The future of a unit; the first one starts the processes."""
        if self._pool is not None:
            return self._pool.submit(function, unit)
        from joblib.externals.loky import ProcessPoolExecutor

        others = set(multiprocessing.active_children())
        with _ctrl_c_ignored(), _quiet_tracker():  # inherited by the processes
            self._pool = ProcessPoolExecutor(
                self._count, initializer=_begin_worker, initargs=(os.getpid(),)
            )
            first = self._pool.submit(function, unit)
        self._processes = set(multiprocessing.active_children()) - others
        return first

    def close(self) -> None:
        """End the processes, whatever they do: that of loky may fail over a unit just submitted."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def _worker_died(workers: int) -> UserError:
    return UserError(
        f"one of {workers} worker processes died (killed, or out of memory); run the same command "
        "again to go on, with a smaller --jobs if memory was short"
    )


def _begin_worker(parent: int) -> None:
    """A terminal sends Ctrl-C to the workers too; the parent ends them, even by being killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_without, args=(parent,), daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_UP)
    os._exit(1)


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


@contextlib.contextmanager
def _quiet_tracker() -> Iterator[None]:
    """loky's helper removes what a killed run has left in memory, and needs no lines to say so."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (before, TRACKER_S_WARNINGS)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
