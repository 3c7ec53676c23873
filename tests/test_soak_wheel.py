"""`make ffcv-wheel`: FFCV without a compiler and without OpenCV's packages. Run by `make soak`."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MEGABYTES = 12  # at most
PIXELS = """
import hashlib, sys
from pathlib import Path
import ffcv._libffcv, torch
from train.dataset import open_dataset
from train.loader import Batches
batches = Batches(open_dataset(Path(sys.argv[1])), 8, 1, order="sequential")
digest = hashlib.sha256()
for batch in batches.sequential():
    digest.update(batch.images.numpy().tobytes())
print(ffcv._libffcv.__file__, digest.hexdigest())
"""


def built() -> Path:
    for old in (ROOT / "dist").glob("ffcv-*.whl"):
        old.unlink()
    subprocess.run([ROOT / "docker" / "ffcv-wheel.sh"], check=True, capture_output=True)
    (wheel,) = (ROOT / "dist").glob("ffcv-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built()


def test_it_is_for_every_python_and_holds_what_it_calls(wheel: Path) -> None:
    assert re.fullmatch(r"ffcv-1\.0\.2-cp38-abi3-manylinux_\d+_\d+_x86_64\.whl", wheel.name)
    assert wheel.stat().st_size < MEGABYTES * 1e6
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "ffcv/_libffcv.abi3.so" in names
    libraries = {name for name in names if name.startswith("ffcv.libs/")}
    for library in ("libopencv_core", "libopencv_imgproc", "libturbojpeg"):
        assert sum(library in name for name in libraries) == 1, library
    others = {name for name in libraries if "opencv" in name}
    assert len(others) == 2, others


def test_it_needs_nothing_that_a_bare_machine_lacks(wheel: Path, tmp_path: Path) -> None:
    """A Debian without packages of its own has these; one without a screen has no libX11."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    inside = {path.name: path for path in tmp_path.rglob("*") if ".so" in path.name}
    needed: set[str] = set()
    for path in inside.values():
        with path.open("rb") as stream:
            dynamic = ELFFile(stream).get_section_by_name(".dynamic")
            needed |= {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")}
    compilers = {"libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"}
    assert needed - inside.keys() <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"} | compilers


def test_it_has_the_same_bytes_every_time(wheel: Path) -> None:
    first = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert hashlib.sha256(built().read_bytes()).hexdigest() == first


def test_a_fresh_environment_reads_the_same_pixels_with_it(
    wheel: Path, betons: Path, tmp_path: Path
) -> None:
    """The locked packages but FFCV, and the wheel, in an environment that builds nothing."""
    lock = (ROOT / "requirements.lock").read_text()
    others = re.sub(r"^ffcv==.*?(?<!\\)\n", "", lock, flags=re.DOTALL | re.MULTILINE)
    assert len(others) < len(lock)
    (tmp_path / "others.lock").write_text(others)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [BIN / "uv", "pip", "install", "--quiet", "--python", python, "--no-deps"]
    subprocess.run(
        [*install, "--require-hashes", "-r", tmp_path / "others.lock"],
        check=True,
    )
    subprocess.run([*install, wheel], check=True)

    def pixels(interpreter: str | Path) -> list[str]:
        line = [interpreter, "-c", PIXELS, betons / "train.beton"]
        done = subprocess.run(line, check=True, capture_output=True, text=True, cwd=ROOT)
        return done.stdout.split()

    there, digest = pixels(python)
    assert there.startswith(str(tmp_path))
    assert there.endswith("_libffcv.abi3.so")
    assert digest == pixels(sys.executable)[1]
