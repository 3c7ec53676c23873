"""crc32 of zlib (ISO 3309) for numba kernels, so that a damaged record is found as it is read.

Where the processor multiplies without carries, 64 bytes are folded into the 64 that follow: Gopal
et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009.
Elsewhere sixteen tables are looked up for sixteen bytes (Kounavis and Berry 2008).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

POLYNOMIAL = 0xEDB88320  # reflected: the highest power is the lowest bit
FOLDED = 64  # bytes that are folded at once
VECTOR = ir.VectorType(ir.IntType(64), 2)


def _tables() -> npt.NDArray[np.uint32]:
    """[16,256]: row k is the crc32 register after a byte and k zero bytes."""
    rows = np.zeros((16, 256), np.uint32)
    rows[0] = np.arange(256)
    for _ in range(8):
        rows[0] = (rows[0] >> 1) ^ (POLYNOMIAL * (rows[0] & 1)).astype(np.uint32)
    for k in range(1, 16):
        rows[k] = (rows[k - 1] >> 8) ^ rows[0][rows[k - 1] & 255]
    return rows


def power(exponent: int) -> int:
    """x^exponent modulo the polynomial, reflected and shifted as a carry-less product needs it."""
    value = 1 << 31  # x^0
    for _ in range(exponent):
        value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
    return value << 1


TABLES = _tables()
MULTIPLIES = bool(binding.get_host_cpu_features().get("pclmul", False))
# What the lower and the upper half of 16 bytes are multiplied by to move them on by so many bits.
BY_64_BYTES = power(4 * 128 + 32), power(4 * 128 - 32)
BY_16_BYTES = power(128 + 32), power(128 - 32)


@intrinsic
def _folded(typingctx: Any, start: Any, blocks: Any, register: Any) -> Any:
    """The two halves of 16 bytes that have the crc32 of `blocks` times FOLDED bytes at `start`."""
    del typingctx, start, blocks, register  # types
    halves: Any = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]
    signature = halves(types.intp, types.intp, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, blocks, register = arguments
        word, byte = ir.IntType(64), ir.IntType(8)
        multiply = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module,
            ir.FunctionType(VECTOR, [VECTOR, VECTOR, byte]),
            "llvm.x86.pclmulqdq",
        )

        def load(address: Any, offset: int) -> Any:
            place = builder.inttoptr(
                builder.add(address, ir.Constant(word, offset)), VECTOR.as_pointer()
            )
            return builder.load(place, align=1)

        def fold(value: Any, powers: tuple[int, int], new: Any) -> Any:
            by = ir.Constant(VECTOR, powers)
            low = builder.call(multiply, [value, by, ir.Constant(byte, 0x00)])
            high = builder.call(multiply, [value, by, ir.Constant(byte, 0x11)])
            return builder.xor(builder.xor(low, high), new)

        before = builder.block
        loop, after = builder.append_basic_block("fold"), builder.append_basic_block("folded")
        zero = ir.Constant(VECTOR, (0, 0))
        first = [load(start, 16 * lane) for lane in range(4)]
        first[0] = builder.xor(
            first[0], builder.insert_element(zero, register, ir.Constant(ir.IntType(32), 0))
        )
        end = builder.add(start, builder.mul(blocks, ir.Constant(word, FOLDED)))
        second = builder.add(start, ir.Constant(word, FOLDED))
        builder.cbranch(builder.icmp_unsigned("<", second, end), loop, after)

        builder.position_at_end(loop)
        address = builder.phi(word)
        lanes = [builder.phi(VECTOR) for _ in range(4)]
        moved = [
            fold(lane, BY_64_BYTES, load(address, 16 * place)) for place, lane in enumerate(lanes)
        ]
        following = builder.add(address, ir.Constant(word, FOLDED))
        address.add_incoming(second, before)
        address.add_incoming(following, loop)
        for lane, old, new in zip(lanes, first, moved, strict=True):
            lane.add_incoming(old, before)
            lane.add_incoming(new, loop)
        builder.cbranch(builder.icmp_unsigned("<", following, end), loop, after)

        builder.position_at_end(after)
        ends = [builder.phi(VECTOR) for _ in range(4)]
        for lane, old, new in zip(ends, first, moved, strict=True):
            lane.add_incoming(old, before)
            lane.add_incoming(new, loop)
        value = ends[0]
        for lane in ends[1:]:
            value = fold(value, BY_16_BYTES, lane)
        halves = [
            builder.extract_element(value, ir.Constant(ir.IntType(32), half)) for half in (0, 1)
        ]
        return context.make_tuple(builder, signature.return_type, halves)

    return signature, generate


folded: Any = _folded  # numba gives its first argument


@njit(nogil=True, cache=True)
def _after(register: np.uint32, byte: np.uint32) -> np.uint32:
    """The register after one more byte, the lowest of `byte`."""
    known: np.uint32 = TABLES[0, (register ^ byte) & np.uint32(255)]
    return known ^ (register >> np.uint32(8))


@njit(nogil=True, cache=True)
def crc32(data: npt.NDArray[np.uint8]) -> int:
    """zlib's crc32 of uint8 [N], contiguous."""
    register = np.uint32(0xFFFFFFFF)
    done = np.uint64(0)
    blocks = len(data) // FOLDED
    if MULTIPLIES and blocks > 0:
        low, high = folded(data.ctypes.data, blocks, np.uint64(register))
        register = np.uint32(0)
        for half in (low, high):
            for place in range(8):
                byte = np.uint32(half >> np.uint64(8 * place)) & np.uint32(255)
                register = TABLES[0, (register ^ byte) & np.uint32(255)] ^ (
                    register >> np.uint32(8)
                )
        done = np.uint64(blocks * FOLDED)
    size = np.uint64(len(data))
    while done + np.uint64(16) <= size:
        total = np.uint32(0)
        for k in range(16):
            byte = np.uint32(data[done + np.uint64(k)])
            if k < 4:
                byte ^= (register >> np.uint32(8 * k)) & np.uint32(255)
            total ^= TABLES[15 - k, byte]
        register = total
        done += np.uint64(16)
    while done < size:
        register = _after(register, np.uint32(data[done]))
        done += np.uint64(1)
    return int(register ^ np.uint32(0xFFFFFFFF))
