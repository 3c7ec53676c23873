"""Random numbers as a function of a counter and a key: Philox4x32-10.

What was drawn for one sample does not depend on what was drawn before it, so augmentation and
dropout stay the same for any number of threads, processes, restarts and any batch size. A counter
is four words of 32 bits, a key two; every counter gives four words of 32 bits. The project's
counters are (block, sample index, epoch or step, stream); the key is the run's seed.

Two faces with equal outputs: `philox4x32` for numba kernels, one counter at a time, and
`philox4x32_torch` for int64 tensors of counters on any device, eager or compiled.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11, section
3.3; known answers in its library Random123, file kat_vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from numba import njit
from numba.extending import register_jitable

WORD = 0xFFFFFFFF  # the low 32 bits
TWO_TO_32 = 1 << 32

# Streams, the counter's fourth word. Two uses never share one.
CROP_AND_MIRROR = 0
COLOUR_NOISE = 1
DROPOUT = 2  # plus the number of the dropout layer; keep it last

ROUNDS = 10
# Multipliers of section 3.3 (0xD2511F53 and 0xCD9E8D57) less 2^32. With m = M - 2^32 the product
# c * m of a 32-bit c stays within 63 bits, where c * M would overflow an int64.
M0 = 0xD2511F53 - TWO_TO_32
M1 = 0xCD9E8D57 - TWO_TO_32
# What the key words grow by each round: the golden ratio and sqrt(3) - 1, in units of 2^-32.
W0 = 0x9E3779B9
W1 = 0xBB67AE85


@register_jitable
def key_words(seed: int) -> tuple[int, int]:
    """The key of a run: the low and the high 32 bits of its seed, 0 <= seed < 2^63."""
    return seed & WORD, (seed >> 32) & WORD


@register_jitable
def _rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """The ten rounds, on anything that multiplies and shifts like a signed 64-bit integer."""
    for _ in range(ROUNDS):
        p0, p1 = c0 * M0, c2 * M1
        # c * M = p + c * 2^32: the high word is (p >> 32) + c, the low word that of p.
        high0, high1 = (p0 >> 32) + c0, (p1 >> 32) + c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, p1 & WORD, high0 ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return c0, c1, c2, c3


@njit(nogil=True, cache=True)
def philox4x32(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]:
    """Four random words of a counter and a key; all are int64 in [0, 2^32)."""
    return _rounds(c0, c1, c2, c3, k0, k1)


def philox4x32_torch(
    counter: tuple[torch.Tensor | int, torch.Tensor | int, torch.Tensor | int, torch.Tensor | int],
    key: tuple[torch.Tensor | int, torch.Tensor | int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four tensors of random words, int64 in [0, 2^32).

    counter, key: integers or int64 tensors, all values in [0, 2^32), at least one a tensor. The
    tensors are broadcast together; each output has the shape they broadcast to.
    """
    return _rounds(*counter, *key)
