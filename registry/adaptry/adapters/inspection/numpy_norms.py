"""Counts and norms of blocks of numbers with numpy. Only the measuring process imports it, for large files.

Its results agree with `plain_norms`: counts exactly, norms within a relative 1e-12 (a sum of at most 2^16
squares in float64). Buffers are allocated once, since new pages for each block would cost more than the
arithmetic. So only one thread may use it at a time. It uses only compiled functions (`numpy_core`).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from adaptry.adapters.inspection.dtypes import BLOCK, bfloat16_tables
from adaptry.adapters.inspection.plain_norms import Measured

Array = np.ndarray[Any, np.dtype[Any]]  # numpy's type parameters cannot be more precise here

_SMALLEST = 1e-280  # a smaller sum of squares may have lost values to underflow
_WIDE = np.empty(BLOCK, "u4")
_VALUES = np.empty(BLOCK, "f8")
np.seterr(all="ignore")  # overflow is expected, and handled below


def measure(dtype: str, data: bytes) -> Measured:
    """Like `plain_norms.measure`, for at most `BLOCK` numbers."""
    values = _decoded(dtype, data)
    squares = float(np.dot(values, values))
    if _SMALLEST < squares < math.inf:
        return 0, 0, math.sqrt(squares)  # a NaN or an infinity would be visible in the sum
    nan = int(np.count_nonzero(np.isnan(values)))
    infinite = int(np.count_nonzero(np.isinf(values)))
    return nan, infinite, _scaled_norm(values[np.isfinite(values)] if nan or infinite else values)


def _scaled_norm(values: Array) -> float:
    """The norm of finite values of any magnitude, without overflow."""
    largest = float(np.maximum.reduce(np.absolute(values), initial=0.0))
    if largest == 0:
        return 0.0
    exponent = math.frexp(largest)[1]
    scaled = np.ldexp(values, -exponent)
    try:
        return math.ldexp(math.sqrt(float(np.dot(scaled, scaled))), exponent)
    except OverflowError:
        return math.inf


def _decoded(dtype: str, data: bytes) -> Array:
    """The numbers as float64 [count], in a buffer that the next block overwrites."""
    match dtype:
        case "F64":
            return np.frombuffer(data, "<f8")
        case "F32" | "C64":
            return _in_float64(np.frombuffer(data, "<f4"))
        case "F16":
            return _in_float64(np.frombuffer(data, "<f2"))
        case "BF16":
            codes = np.frombuffer(data, "<u2")
            wide = _WIDE[: len(codes)]
            np.copyto(wide, codes)
            np.left_shift(wide, 16, out=wide)
            return _in_float64(wide.view("f4"))
        case _:
            return _in_float64(_table(dtype)[np.frombuffer(data, "u1")])


def _in_float64(numbers: Array) -> Array:
    values = _VALUES[: len(numbers)]
    np.copyto(values, numbers)
    return values


@cache
def _table(dtype: str) -> Array:
    low, high = (np.frombuffer(half, "u1").astype("u4") for half in bfloat16_tables(dtype))
    return (low << 16 | high << 24).view("f4")
