"""Counts and norms of a block of numbers, with only the standard library."""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Sequence
from functools import cache

from adaptry.adapters.inspection.dtypes import bfloat16_tables

Measured = tuple[int, int, float]
"""Number of NaN values, number of infinite values, and the Euclidean norm of the others (infinity if that
exceeds a float64).
"""


def measure(dtype: str, data: bytes) -> Measured:
    """Measures little-endian numbers of `dtype` (a key of `dtypes.WIDTHS`). The norm is exact to a bit or
    two.
    """
    values = _decoded(dtype, data)
    norm = math.hypot(*values)  # scales by the largest value, so that nothing overflows or underflows
    if math.isfinite(norm):
        return 0, 0, norm
    nan = sum(map(math.isnan, values))
    infinite = sum(map(math.isinf, values))
    return nan, infinite, math.hypot(*filter(math.isfinite, values))


def _decoded(dtype: str, data: bytes) -> Sequence[float]:
    match dtype:
        case "F64":
            return _array("d", data)
        case "F32" | "C64":
            return _array("f", data)
        case "F16":
            return struct.unpack(f"<{len(data) // 2}e", data)
        case "BF16":
            return _widened(data[::2], data[1::2])
        case _:
            low, high = _tables(dtype)
            return _widened(data.translate(low), data.translate(high))


def _widened(low: bytes, high: bytes) -> Sequence[float]:
    """Bfloat16 numbers, given their low and high bytes, which are the upper halves of float32 numbers."""
    wide = bytearray(4 * len(low))
    wide[2::4], wide[3::4] = low, high
    return _array("f", wide)


def _array(code: str, data: bytes | bytearray) -> Sequence[float]:
    values = array(code, bytes(data))
    if sys.byteorder == "big":
        values.byteswap()
    return values


_tables = cache(bfloat16_tables)
