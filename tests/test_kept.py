"""A kernel on disk is not used once code of another module that it contains has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

from prep import bilinear
from train import augment, colour, crc32, philox, reading

INNER = """
from numba import njit

@njit
def value():
    return {value}
"""
OUTER = """
import inner
from numba import njit
from train.kept import made_of

@njit(cache=True)
{decorator}
def kernel():
    return inner.value()

print(kernel(), sum(kernel.stats.cache_hits.values()))
"""


@pytest.mark.parametrize(
    ("decorator", "after"), [("@made_of(inner)", ["2 0", "2 1"]), ("", ["1 1", "1 1"])]
)
def test_a_kernel_is_made_anew_when_what_it_calls_has_changed(
    decorator: str, after: list[str], tmp_path: Path
) -> None:
    """Without made_of, the second row: numba's own rule gives the old value."""
    (tmp_path / "outer.py").write_text(OUTER.format(decorator=decorator))

    def run() -> str:
        line = [sys.executable, "-B", "outer.py"]
        return subprocess.check_output(line, cwd=tmp_path, text=True).strip()

    (tmp_path / "inner.py").write_text(INNER.format(value=1))
    assert [run(), run()] == ["1 0", "1 1"]
    (tmp_path / "inner.py").write_text(INNER.format(value=2))
    assert [run(), run()] == after


def called(kernel: Dispatcher) -> set[Dispatcher]:
    """The kernels that are compiled into a kernel."""
    function: Any = kernel.py_func  # type: ignore[attr-defined]
    names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    found = {value for value in names.values() if isinstance(value, Dispatcher)}
    return found.union(*map(called, found))


@pytest.mark.parametrize("module", [augment, bilinear, colour, crc32, philox, reading])
def test_every_kernel_on_disk_names_what_it_calls(module: ModuleType) -> None:
    kernels = [value for value in vars(module).values() if isinstance(value, Dispatcher)]
    own = [kernel for kernel in kernels if kernel.__module__ == module.__name__]
    assert own
    for kernel in own:
        of_others = any(part.__module__ != module.__name__ for part in called(kernel))
        assert of_others == ("_of_" in kernel.__qualname__), kernel
