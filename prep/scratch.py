"""Memory that a thread uses again for the next picture.

New pages cost a fault each, some 2 microseconds on a virtual machine: for the pixels of one
ImageNet original a sixth of its decoding.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from prep.direct import aligned

KEPT = 16 << 20  # bytes; what is larger is rare and not kept

_kept = threading.local()


def scratch(use: str, size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes of any content, good until this thread asks for the same use again.

    Up to KEPT they are aligned (prep.direct).
    """
    if size > KEPT:
        return np.empty(size, np.uint8)
    memory: npt.NDArray[np.uint8] | None = getattr(_kept, use, None)
    if memory is None or len(memory) < size:
        memory = aligned(size)
        setattr(_kept, use, memory)
    return memory[:size]
