"""Runs work units on the workers of a Dask cluster that is already there.

joblib's own Dask backend is not used: it waits for ever for a unit whose workers died (its
callback runs for results only). Dask gives a unit whose worker died to another worker, and gives
up on one that killed four; then the run ends with an error.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from prep.code_version import code_version
from prep.program import UserError, first_line
from prep.worker import Files, do_if_fit, refuse_unfit_workers, without_prep

Unit = TypeVar("Unit")
Result = TypeVar("Result")

WAITING_UNITS = 2  # for each core of the cluster: one at work, one on its way
POLL = 5.0  # seconds between looks at the cluster's size
CONNECT = 20.0  # seconds to find the scheduler
PATIENCE = 60.0  # seconds without any worker before the run is given up


def run_on_dask(
    function: Callable[[Unit], Result], units: Iterable[Unit], address: str, files: Files = ()
) -> Iterator[Result]:
    """Yield function(unit) for every unit, in order of completion.

    Workers may come and go. Raises UserError when no scheduler answers at `address`, when there
    are no workers for a minute, when one has other code or does not see one of `files`, or when a
    unit has killed several workers.
    """
    with connected(address) as client:
        from distributed.scheduler import KilledWorker

        refuse_unfit_workers(client, files)
        work = (pickle.dumps((function, unit)) for unit in units)
        for future in _finished(client, address, work, files):
            try:
                yield future.result()
            except ImportError as error:
                raise UserError(f"a Dask worker that came later {without_prep(error)}") from error
            except KilledWorker as error:
                raise UserError(
                    f"a unit of work killed its Dask worker again and again ({error}); look at the "
                    "workers' logs, give them more memory, then run the same command again"
                ) from error
            except CancelledError as error:
                raise _gone(address, error) from error


def connected(address: str) -> Any:
    """A client of the scheduler at `address`, to be closed. Raises UserError when none answers."""
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            f"--dask {address} needs the package distributed ({error}); install "
            "alexnet-ffcv[cluster]"
        ) from error
    try:
        # Client itself waits for ever where something listens that says nothing.
        asyncio.run(asyncio.wait_for(_answers(address), CONNECT))
        return Client(address, timeout=CONNECT)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address} ({first_line(error)}); start one with `dask "
            "scheduler`, or mend --dask"
        ) from error


async def _answers(address: str) -> None:
    from distributed.core import rpc

    async with rpc(address) as scheduler:  # type: ignore[no-untyped-call]
        await scheduler.echo(data="")


def _finished(client: Any, address: str, waiting: Iterator[bytes], files: Files) -> Iterator[Any]:
    """The future of every unit once it is done; only some are with the cluster at a time."""
    from distributed import wait

    running: set[Any] = set()
    cluster = _Cluster(client, address)
    while True:
        try:
            free = max(WAITING_UNITS * cluster.cores() - len(running), 0)
            fresh = list(itertools.islice(waiting, free))
            running |= {
                client.submit(do_if_fit, work, code_version(), files, pure=False) for work in fresh
            }
            if not running:
                if free:  # there was room, and nothing to fill it
                    return
                continue
            done = wait(  # type: ignore[no-untyped-call]
                running, timeout=POLL, return_when="FIRST_COMPLETED"
            ).done
        except TimeoutError:
            continue
        except (CancelledError, OSError) as error:
            raise _gone(address, error) from error
        yield from done
        running -= done


def _gone(address: str, error: BaseException) -> UserError:
    return UserError(
        f"the Dask scheduler at {address} is gone ({first_line(error)}); start it again, then run "
        "the same command again: finished work is kept"
    )


class _Cluster:
    """Knows how many cores the cluster has, asking it now and then."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._asked = -POLL
        self._seen = time.monotonic()
        self._cores = 0

    def cores(self) -> int:
        """Raises UserError when there has been no worker for PATIENCE seconds."""
        now = time.monotonic()
        if now - self._asked >= POLL or not self._cores:
            self._cores = sum(self._client.ncores().values())
            self._asked = now
        if self._cores:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise UserError(
                f"the Dask scheduler at {self._address} has had no workers for {PATIENCE:.0f} s; "
                "start some (`dask worker ADDRESS`), then run the same command again"
            )
        else:
            time.sleep(1)
        return self._cores
