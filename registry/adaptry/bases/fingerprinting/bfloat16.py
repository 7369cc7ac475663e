"""Floats as bfloat16, rounded to nearest and ties to even, as torch casts them.

Samples use plain Python, whole tensors numpy, if it is installed. Inputs and outputs are bits, since casts
are recognised by equal bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any


def bfloat16_of(value: float) -> int:
    """The 16 bits of a value that float32 can hold."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0x7FC0  # NaN; torch writes this one for every payload
    return int((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


def float_of(bits: int) -> float:
    """The value of 16 bits of bfloat16."""
    (value,) = struct.unpack("<f", struct.pack("<I", bits << 16))
    return float(value)


def converter(dtype: str) -> Callable[[memoryview], memoryview] | None:
    """A function from little-endian bytes of F32 or F16 to those of BF16; None for other dtypes, or without
    numpy.

    A piece must contain whole elements.
    """
    try:
        import numpy as np
    except ImportError:
        return None
    if dtype == "F32":
        return lambda data: _rounded(np, np.frombuffer(data, "<u4"))
    if dtype == "F16":
        return lambda data: _rounded(np, np.frombuffer(data, "<f2").astype("<f4").view("<u4"))
    return None


def _rounded(np: Any, bits: Any) -> memoryview:
    """(`Any`: numpy is optional, so its types are not named here.)"""
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    rounded[(bits & 0x7FFFFFFF) > 0x7F800000] = 0x7FC0
    return memoryview(rounded).cast("B")
