"""Hosts that write one folder of a network file system, each by a mount of its own.

Run as root by `make soak`: sshfs without its ssh, with a cache a mount, on which no host sees
another's locks. On another file system, mounted thrice: SHARED_MOUNTS=/mnt/a:/mnt/b:/mnt/c, and
SHARED_CALLED says which one that is. Figures go to benchmarks/results/soak-shared-*.json.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prep_in_small_units import UNIT_SIZE
from test_resize import contents
from test_soak import save
from test_soak_train import STEPS, assert_equal_runs, steps_done
from test_soak_train import command as train_command

from prep.sample import draw_sample
from train import checkpoint as checkpoints

MOUNTS = [Path(place) for place in os.environ.get("SHARED_MOUNTS", "").split(":") if place]
CALLED = os.environ.get("SHARED_CALLED", "sshfs over a socket")
SERVER = Path("/usr/lib/openssh/sftp-server")
MISSING = [
    name
    for name, there in (
        ("sshfs", shutil.which("sshfs")),
        ("openssh-sftp-server", SERVER.exists()),
        ("/dev/fuse", Path("/dev/fuse").exists()),
    )
    if not there
]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not MOUNTS and os.geteuid() != 0, reason="mounting is for root"),
    pytest.mark.skipif(not MOUNTS and bool(MISSING), reason=f"{', '.join(MISSING)} missing"),
]

ROOT = Path(__file__).resolve().parent.parent
PREP = [sys.executable, str(ROOT / "tests" / "prep_in_small_units.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
HOSTS, CLASSES, PER_CLASS = 3, 5, 40


@contextlib.contextmanager
def mounted(share: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    ours, theirs = socket.socketpair()
    mount = ["sshfs", "-f", "-o", "passive,default_permissions", f":{share}", str(place)]
    with ours, theirs:
        server = subprocess.Popen([str(SERVER)], stdin=ours, stdout=ours)
        client = subprocess.Popen(mount, stdin=theirs, stdout=theirs)
    try:
        until = time.monotonic() + 20
        while not place.is_mount():
            assert client.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        client.terminate()  # a mount namespace that was made meanwhile has the mount still
        client.wait(20)
        server.wait(20)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """The folder, as its server has it or, of mounts that are given, the first host."""
    if MOUNTS:
        folder = MOUNTS[0] / uuid.uuid4().hex
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)
    else:
        (tmp_path / "share").mkdir()
        yield tmp_path / "share"


@pytest.fixture
def hosts(share: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """The folder, as each host has it."""
    if MOUNTS:
        assert len(MOUNTS) == HOSTS
        yield [mount / share.name for mount in MOUNTS]
        return
    with contextlib.ExitStack() as ending:
        yield [
            ending.enter_context(mounted(share, tmp_path / f"host{number}"))
            for number in range(HOSTS)
        ]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "src"
    draw_sample(out, CLASSES, PER_CLASS, 10, 0, 2, lambda *_: None)
    return out


@pytest.fixture(scope="module", params=["tree", "tar"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(pictures: Path, layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    assert end(begin("resize", pictures, out, f"--layout={layout}"))[0] == 0
    return out


def begin(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PREP, *map(str, arguments), "--jobs=1"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def see_locks(hosts: list[Path]) -> bool:
    """Whether a host sees the locks of another."""
    (hosts[0] / "file").write_text("x")
    with (hosts[0] / "file").open("r+") as mine, (hosts[1] / "file").open("r+") as theirs:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.skipif(bool(MOUNTS), reason="of sshfs")
def test_no_host_sees_another_s_locks(hosts: list[Path]) -> None:
    """Else the tests below would be of less."""
    assert not see_locks(hosts)


def test_parts_on_many_hosts_write_one_folder(
    pictures: Path, alone: Path, layout: str, share: Path, hosts: list[Path]
) -> None:
    command = ("resize", pictures)
    parts = [
        begin(*command, host / "out", f"--layout={layout}", f"--part={number}/{HOSTS}")
        for number, host in enumerate(hosts, 1)
    ]
    for part in parts:
        code, said = end(part)
        assert code == 0, said
    code, said = end(begin(*command, hosts[1] / "out", f"--layout={layout}"))
    assert code == 0, said
    assert contents(share / "out") == contents(alone)
    for split in ("train", "val"):
        code, said = end(
            begin("write-beton", hosts[0] / "out" / split, hosts[0] / f"{split}.beton")
        )
        assert code == 0, said
    readers = [begin("verify", host / "val.beton") for host in hosts]
    assert [end(reader)[0] for reader in readers] == [0] * HOSTS
    save(
        f"shared-{_type(hosts[0])}-{layout}",
        {
            "command": f"prep resize --layout {layout} --part, all parts at once, then without",
            "file system": f"{CALLED}, a mount a part; locks are "
            + ("seen by all" if see_locks(hosts) else "each mount's own"),
            "parts": HOSTS,
            "units of train": -(-CLASSES * PER_CLASS // UNIT_SIZE),
            "bytes": "those of one process on one disk",
            "a beton there": f"verified by {HOSTS} hosts at once",
        },
    )


def _type(place: Path) -> str:
    """Of the file system: "sshfs", "nfs4", ...; of one in user space without its first part."""
    asked = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(place)]
    return subprocess.check_output(asked, text=True).strip().rpartition(".")[2]


def test_what_one_host_makes_is_what_a_disk_of_its_own_would_have(
    pictures: Path, tmp_path: Path, share: Path, hosts: list[Path]
) -> None:
    """A file that is removed while it is open keeps its folder there until it is closed."""
    for place in (tmp_path / "disk", hosts[0]):
        commands: list[tuple[object, ...]] = [
            ("resize", pictures, place / "out"),
            ("stats", place / "out" / "train"),
            ("write-beton", place / "out" / "train", place / "train.beton"),
            ("build", pictures, place / "built"),
        ]
        for command in commands:
            code, said = end(begin(*command))
            assert code == 0, said
    assert contents(share) == contents(tmp_path / "disk")
    assert not list(share.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_another_host_goes_on_with_a_training(
    betons: Path, tmp_path: Path, share: Path, hosts: list[Path], number: signal.Signals
) -> None:
    undisturbed = tmp_path / "undisturbed"
    subprocess.run(train_command(betons, undisturbed), check=True, capture_output=True)
    shutil.copytree(betons, share / "betons")
    first = subprocess.Popen(
        train_command(hosts[0] / "betons", hosts[0] / "run"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while steps_done(hosts[0] / "run") < STEPS // 2:
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(number)
    assert first.wait(60) != 0
    stopped_at = checkpoints.load(hosts[0] / "run").step
    assert STEPS // 2 <= stopped_at < STEPS
    subprocess.run(
        train_command(hosts[1] / "betons", hosts[1] / "run"), check=True, capture_output=True
    )
    assert_equal_runs(undisturbed, hosts[2] / "run")
    save(
        f"shared-{_type(hosts[0])}-train-{number.name.lower()}",
        {
            "command": "train run, its beton and --out on the file system",
            "file system": CALLED,
            "signal": number.name,
            "at step": stopped_at,
            "of": STEPS,
            "gone on with": "by another mount's process",
            "losses, errors and weights": "those of an undisturbed run on one disk, bit for bit",
        },
    )


def test_of_two_whole_runs_that_no_lock_keeps_apart_the_later_one_finishes(
    pictures: Path, alone: Path, layout: str, share: Path, hosts: list[Path]
) -> None:
    if see_locks(hosts):
        pytest.skip("a lock keeps them apart")
    command = ("resize", pictures)
    earlier = begin(*command, hosts[0] / "out", f"--layout={layout}")
    until = time.monotonic() + 120
    while not list((share / "out" / ".prep").glob("train/*.parquet")):
        assert time.monotonic() < until
        time.sleep(0.02)
    later = begin(*command, hosts[1] / "out", f"--layout={layout}")
    (code, said), (later_code, later_said) = end(earlier), end(later)
    assert later_code == 0, later_said
    assert code == 1, said
    assert "the run that this worker belongs to is over" in said
    assert contents(share / "out") == contents(alone)
