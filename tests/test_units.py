"""Units of work on processes: every result once, and no hang when one fails or dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest

from prep import units
from prep.program import UserError
from prep.units import AHEAD, OrderedWorkers, run_units, worker_count


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def refuse_seven(number: int) -> int:
    if number == 7:
        raise UserError("7 is refused")
    return number


def die_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_unit_gives_one_result(jobs: int) -> None:
    results = list(run_units(square, range(40), jobs))
    assert sorted(result for result, _ in results) == [number**2 for number in range(40)]


def test_one_job_runs_here_and_more_run_elsewhere() -> None:
    assert {pid for _, pid in run_units(square, range(4), 1)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in run_units(square, range(4), 2)}


def test_units_are_drawn_as_they_are_needed() -> None:
    results = run_units(square, endless(), 1)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 4]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_s_exception_is_raised_here(jobs: int) -> None:
    with pytest.raises(UserError, match=r"^7 is refused$"):
        list(run_units(refuse_seven, range(40), jobs))


def test_a_dead_worker_ends_the_run_with_an_error() -> None:
    with pytest.raises(UserError, match=r"one of 2 worker processes died .*--jobs"):
        list(run_units(die_at_seven, range(40), 2))
    assert len(list(run_units(square, range(4), 2))) == 4  # the next run has new workers


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_units_are_no_results(jobs: int) -> None:
    assert list(run_units(square, [], jobs)) == []


def test_the_environment_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    for value in (None, "ignore::DeprecationWarning"):
        if value is not None:
            monkeypatch.setenv("PYTHONWARNINGS", value)
        before = dict(os.environ)
        with units._quiet_tracker():
            assert os.environ["PYTHONWARNINGS"].endswith("ignore:resource_tracker:UserWarning")
        assert dict(os.environ) == before


def test_no_number_of_jobs_means_every_core() -> None:
    assert worker_count(None) == joblib.cpu_count()
    assert worker_count(3) == 3


def test_workers_end_when_their_parent_is_killed() -> None:
    program = (
        "import os, signal, time\n"
        "from prep.units import run_units\n"
        "def slow(number):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"  # at once: two of them write
        "    time.sleep(60)\n"
        "list(run_units(slow, range(2), 2))\n"
    )
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        _, said = process.communicate(timeout=30)  # once no process of it is left
    assert said == b""
    ended = time.monotonic() + 10
    while any(Path(f"/proc/{worker}/stat").exists() for worker in workers):
        assert time.monotonic() < ended, "a worker goes on"
        time.sleep(0.1)


# --------------------------------------------------------------------------- in order


def slow_when_even(number: int) -> int:
    time.sleep(0.05 * (number % 2 == 0))
    return number


@pytest.fixture
def workers() -> Iterator[OrderedWorkers]:
    with contextlib.closing(OrderedWorkers(2)) as made:
        yield made


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_come_in_the_order_of_the_units(jobs: int) -> None:
    with contextlib.closing(OrderedWorkers(jobs)) as workers:
        assert list(workers.run(slow_when_even, range(20))) == list(range(20))
        assert list(workers.run(slow_when_even, [])) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_few_results_wait_to_be_taken(jobs: int) -> None:
    drawn = []

    def units() -> Iterator[int]:
        for number in endless():
            drawn.append(number)
            yield number

    with contextlib.closing(OrderedWorkers(jobs)) as workers:
        results = workers.run(slow_when_even, units())
        assert [next(results) for _ in range(5)] == list(range(5))
        time.sleep(0.3)
        assert len(drawn) <= 5 + jobs + AHEAD


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_s_exception_is_raised_here_in_order(jobs: int) -> None:
    with contextlib.closing(OrderedWorkers(jobs)) as workers:
        results = workers.run(refuse_seven, range(40))
        assert [next(results) for _ in range(7)] == list(range(7))
        with pytest.raises(UserError, match=r"^7 is refused$"):
            next(results)


def test_a_dead_worker_ends_an_ordered_run_with_an_error(workers: OrderedWorkers) -> None:
    with pytest.raises(UserError, match=r"one of 2 worker processes died .*--jobs"):
        list(workers.run(die_at_seven, range(40)))


def test_ordered_workers_are_started_once_and_end_when_closed(workers: OrderedWorkers) -> None:
    first = {pid for _, pid in workers.run(square, range(8))}
    started = {process.pid for process in workers._processes}
    second = {pid for _, pid in workers.run(square, range(8))}
    assert first | second <= started  # one that is quick may do all of them
    assert len(started) == 2
    next(workers.run(square, endless()))  # and is left early
    workers.close()
    ended = time.monotonic() + 10
    while any(_runs(pid) for pid in started):
        assert time.monotonic() < ended, "a worker goes on"
        time.sleep(0.1)


def test_ordered_workers_keep_out_of_the_way_of_others(workers: OrderedWorkers) -> None:
    assert len(list(run_units(square, range(4), 2))) == 4
    assert len(list(workers.run(square, range(4)))) == 4
    assert len(list(run_units(square, range(4), 2))) == 4


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
