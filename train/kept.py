"""Which kernels on disk are still good.

numba keeps a compiled kernel until the file that defines it changes, and does not look at the files
of the functions that it calls. So the name that it is kept under says what those are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def made_of(*modules: ModuleType) -> Callable[[Any], Any]:
    """For the function of a kernel that contains code of these modules, below @njit(cache=True)."""
    texts = [Path(str(module.__file__)).read_bytes() for module in modules]
    code = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest()

    def named(function: Any) -> Any:
        function.__qualname__ += f"_of_{code[:16]}"  # a part of the file's name
        return function

    return named
