"""How much memory decoding one file may take: at most GROWTH, whatever the file claims.

A few kilobytes can make a decoder ask for gigabytes in more ways than a check of headers finds:
tiles larger than the picture, metadata that names the same bytes a thousand times, frames kept
for an animation. So the kernel is told to refuse (RLIMIT_DATA, Linux 4.7 and later); the decoder
then fails as it does when memory is short. Where the system has no such limit nothing is bounded.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

# Beside the file's bytes. 40 million pixels took 640 MiB at most (half-transparent WebP); a
# worker has some 100 MiB before, and the target for any input is 1 GiB.
GROWTH = 800 << 20

_one_at_a_time = threading.Lock()  # the limit is the process's


@contextlib.contextmanager
def memory_bound(held: int) -> Iterator[None]:
    """Let this process grow by GROWTH at most, less the `held` bytes that a file has already.

    Allocations beyond that raise MemoryError, or whatever a decoder makes of them.
    """
    with _one_at_a_time:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        now = _private_bytes()
        if now is None:
            yield
            return
        wanted = now + max(GROWTH - held, GROWTH // 2)
        limits = [wanted, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int | None:
    """What RLIMIT_DATA counts: writable private memory, touched or not."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except OSError:
        return None
    return pages * resource.getpagesize()
