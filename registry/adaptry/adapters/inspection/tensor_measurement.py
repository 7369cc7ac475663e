"""Measures one tensor of a stream of bytes, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from adaptry.adapters.inspection.dtypes import BLOCK, ONES, WIDTHS
from adaptry.adapters.inspection.plain_norms import Measured

Measure = Callable[[str, bytes], Measured]
"""`plain_norms.measure`, or that of `numpy_norms`."""
MeasuredTensor = tuple[int, int, float | None, bool, bool]
"""The fields of a `TensorStatistics`."""


class Source(Protocol):
    """A sequential source of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes; fewer at the end."""


class ShortFile(Exception):
    """The bytes end before the tensors do."""


def measure_tensor(source: Source, dtype: str, size: int, measure: Measure) -> MeasuredTensor:
    """Measures the next `size` bytes, which are a tensor of this dtype. Raises `ShortFile`."""
    width = WIDTHS.get(dtype)
    if width is None:
        is_zero = size > 0
        for start in range(0, size, BLOCK):
            data = _read(source, min(BLOCK, size - start))
            is_zero = is_zero and data.count(0) == len(data)
        return 0, 0, None, is_zero, False
    nan = infinite = 0
    norms = []
    one = ONES.get(dtype, b"")
    is_one = size > 0 and bool(one)
    for start in range(0, size, BLOCK * width):
        data = _read(source, min(BLOCK * width, size - start))
        is_one = is_one and data == one * (len(data) // width)
        found = measure(dtype, data)
        nan, infinite = nan + found[0], infinite + found[1]
        norms.append(found[2])
    norm = math.hypot(*norms)
    is_zero = size > 0 and not nan and not infinite and norm == 0
    return nan, infinite, norm if math.isfinite(norm) else None, is_zero, is_one


def _read(source: Source, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise ShortFile
    return data
