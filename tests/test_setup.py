"""setup.sh and the Makefile: what a bare machine is told, and that a second call does nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("bash", "cat", "dirname", "sha256sum")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that setup.sh reads, and a PATH of four tools in `bin`."""
    folder = tmp_path / "checkout"
    (folder / "bin").mkdir(parents=True)
    for name in ("setup.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / "bin" / tool).symlink_to(found)
    return folder


def stub(checkout: Path, name: str, script: str) -> None:
    path = checkout / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run_setup(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "setup.sh"],
        env={"PATH": str(checkout / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_user_who_may_not_install_gets_one_line_with_the_command(checkout: Path) -> None:
    stub(checkout, "id", "echo 1000")
    stub(checkout, "apt-get", "exit 9")
    done = run_setup(checkout)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    for package in ("g++", "libopencv-dev", "libturbojpeg0-dev", "pkg-config", "python3-dev"):
        assert package in done.stderr
    assert "sudo apt-get install -y" in done.stderr
    assert not (checkout / ".venv").exists()


def test_without_apt_the_missing_packages_are_named(checkout: Path) -> None:
    stub(checkout, "id", "echo 0")
    done = run_setup(checkout)
    assert done.returncode == 1
    assert " python3 python3-dev python3-venv " in done.stderr
    assert "libopencv-dev" in done.stderr


def test_a_second_call_does_nothing(checkout: Path) -> None:
    wanted = b"".join(
        (checkout / name).read_bytes()
        for name in ("setup.sh", "pyproject.toml", "requirements.lock")
    )
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "set-up").write_text(f"{hashlib.sha256(wanted).hexdigest()}  -\n")
    started = time.monotonic()
    done = run_setup(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - started < 3.0


def test_the_lock_has_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pinned = [line for line in lock.splitlines() if "==" in line]
    assert len(pinned) > 30
    assert all(line.endswith("\\") for line in pinned)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "soak"])
def test_make_works_from_any_folder(target: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--file", ROOT / "Makefile", target],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{ROOT}/setup.sh" in done.stdout
