"""Units on a Dask cluster: a real scheduler, two worker processes, one of them killed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_resize import contents, tiny_source

from prep.cluster import connected, run_on_dask
from prep.code_version import code_version
from prep.images import Settings
from prep.plan import Options
from prep.program import UserError
from prep.resize import resize
from prep.sources import find_source, listing
from prep.units import run_units

ROOT = Path(__file__).resolve().parent


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(*arguments: str, code: Path = ROOT.parent) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{code}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=code,  # which `python -m` imports from
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def worker(
    address: str, code: Path = ROOT.parent
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    line = ("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    return running(*line, code=code)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with running("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"):
        yield address


def slowly(unit: int) -> tuple[int, int]:
    time.sleep(0.05)
    return unit, os.getpid()


def deadly(unit: int) -> int:
    if unit == 3:
        os._exit(1)
    return unit


def refuse(unit: int) -> int:
    raise UserError(f"{unit} is refused; give another")


@pytest.mark.parametrize("layout", ["tree", pytest.param("tar", marks=pytest.mark.soak)])
def test_a_cluster_makes_the_bytes_of_one_process_though_a_worker_is_killed(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(listing, "UNIT_SIZE", 1)
    source = find_source(tiny_source(tmp_path / "src", train=60))
    options = Options(Settings(side=32), layout=layout, jobs=1, max_rejects=1)
    resize(source, tmp_path / "alone", options)
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere
    with worker(scheduler), worker(scheduler) as victim:
        pids = {pid for _, pid in run_on_dask(slowly, range(60), scheduler)}
        assert len(pids) == 2
        assert victim.pid in pids

        def kill_halfway(*arguments: object) -> Iterator[object]:
            for number, result in enumerate(run_units(*arguments)):  # type: ignore[arg-type]
                if number == 20:
                    victim.kill()
                yield result

        monkeypatch.setattr("prep.resize.run_units", kill_halfway)
        resize(source, Path("cluster"), dataclasses.replace(options, dask=scheduler))
        assert victim.wait() != 0
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")


def test_an_exception_of_a_unit_is_raised_here_as_it_is(scheduler: str) -> None:
    with worker(scheduler):
        with pytest.raises(UserError, match="0 is refused"):
            list(run_on_dask(refuse, [0], scheduler))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            list(run_on_dask(os.listdir, ["/nowhere"], scheduler))


def test_a_unit_that_kills_its_workers_ends_the_run(scheduler: str) -> None:
    with contextlib.ExitStack() as workers:
        for _ in range(5):
            workers.enter_context(worker(scheduler))
        with pytest.raises(UserError, match="killed its Dask worker again and again"):
            list(run_on_dask(deadly, range(6), scheduler))


def test_no_workers_end_the_run(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.cluster.PATIENCE", 1.0)
    with pytest.raises(UserError, match=r"has had no workers for 1 s; start some"):
        list(run_on_dask(slowly, range(3), scheduler))


def test_no_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.cluster.CONNECT", 1.0)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=rf"no Dask scheduler answers at {address}"):
        list(run_on_dask(slowly, range(3), address))
    with pytest.raises(UserError, match="no Dask scheduler answers at nonsense://x"):
        list(run_on_dask(slowly, range(3), "nonsense://x"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"no Dask scheduler answers at {address}"):
            list(run_on_dask(slowly, range(3), address))


def test_a_scheduler_that_is_lost_on_the_way_is_named() -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    line = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    done = []
    with running(*line) as lost, worker(address):

        def units() -> Iterator[int]:
            for number in range(1000):
                if number == 10:
                    lost.kill()
                done.append(number)
                yield number

        with pytest.raises(UserError, match=rf"the Dask scheduler at {address} is gone \(.*start"):
            list(run_on_dask(slowly, units(), address))
    assert 10 < len(done) < 1000


# --------------------------------------------------------------------------- unfit workers


def wait_for_workers(scheduler: str, count: int) -> None:
    with connected(scheduler) as client:
        client.wait_for_workers(count, timeout=60)


@pytest.mark.parametrize(
    "changed", ["a line more", pytest.param("too old to be asked", marks=pytest.mark.soak)]
)
def test_a_worker_with_other_code_is_refused_by_name_before_anything_is_done(
    scheduler: str, tmp_path: Path, changed: str
) -> None:
    other = tmp_path / "other"
    if changed == "a line more":
        shutil.copytree(ROOT.parent / "prep", other / "prep")
        with (other / "prep" / "resize.py").open("a") as code:
            code.write("# of another day\n")
    else:
        (other / "prep").mkdir(parents=True)
        (other / "prep" / "__init__.py").write_text("")
    with worker(scheduler), worker(scheduler, other):
        wait_for_workers(scheduler, 2)
        with pytest.raises(UserError) as refused:
            list(run_on_dask(leave, [tmp_path / "done"] * 9, scheduler))
    message = str(refused.value)
    assert re.match(r"Dask worker tcp://127.0.0.1:\d+ (has|could not load)", message)
    assert f"this command has {code_version()}: install the same there" in message
    assert message.count(f"of code {code_version().split()[4]}") == 1
    assert message.count(" of code ") == (2 if changed == "a line more" else 1)
    assert not (tmp_path / "done").exists()


def leave(path: Path) -> None:
    path.touch()


@pytest.mark.soak
def test_a_worker_that_comes_later_with_other_code_ends_the_run(
    scheduler: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT.parent / "prep", tmp_path / "prep")
    with (tmp_path / "prep" / "resize.py").open("a") as code:
        code.write("# of another day\n")

    def units() -> Iterator[int]:
        for number in range(1000):
            if number == 6:
                late.enter_context(worker(scheduler, tmp_path))
                wait_for_workers(scheduler, 2)
            yield number

    with (
        contextlib.ExitStack() as late,
        worker(scheduler),
        pytest.raises(UserError, match=r"Dask worker .* has prep .* this command has prep"),
    ):
        list(run_on_dask(slowly, units(), scheduler))


@pytest.mark.parametrize("missing", ["source", pytest.param("out", marks=pytest.mark.soak)])
def test_a_worker_without_a_mount_is_refused(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """As if the worker had another disk there: the file is gone when it looks."""
    source = find_source(tiny_source(tmp_path / "src"))
    options = Options(Settings(side=32), jobs=1, max_rejects=1, dask=scheduler)
    gone = source.first_file("train") if missing == "source" else tmp_path / "out/.prep/workers"

    def hidden(*arguments: object) -> Iterator[object]:
        gone.unlink()
        yield from run_units(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("prep.resize.run_units", hidden)
    wanted = rf"Dask worker tcp://.* does not see {gone} \(No such file.*mount it there under"
    with worker(scheduler), pytest.raises(UserError, match=wanted):
        resize(source, tmp_path / "out", options)
