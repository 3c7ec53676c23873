"""Which code runs here: on another machine, or later, another one may be installed."""

from __future__ import annotations

import functools
import hashlib
import sys
from importlib import metadata
from pathlib import Path

from prep import __version__

PACKAGES = ("numba", "numpy", "opencv-python-headless", "pillow", "simplejpeg")  # decide bytes


@functools.cache
def code_version() -> str:
    """Version and sha256 of this package's modules, Python's version, and those of PACKAGES.

    Of the time of the first call: a process that goes on has the modules that it began with.
    """
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return f"prep {__version__} of code {code_of(Path(__file__).parent)}, {python}, {packages}"


def code_of(*packages: Path) -> str:
    """12 hexadecimal digits: of the names and bytes of the modules in these folders."""
    digest = hashlib.sha256()
    for folder in packages:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
