"""The interface of merge kernels: the arithmetic and reused buffers of one thread, which processes a weight
in blocks of rows.

The arithmetic is PEFT's `merge_and_unload` on CPU: `W' = round(float32(W) + scale · (B @ A))`, an fp32
product summed from zero, one fp32 multiplication, one fp32 addition, one rounding to the result's dtype. No
two of these steps may be fused, or elements change. Several terms are summed in fp32 before the one rounding
(PEFT rounds once per adapter, which is less exact).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from adaptry.adapters.methods.row_formula import RowFormula
from adaptry.core.lazy_dataclass import dataclass

BLOCK = 256 << 10
"""Bytes of W per block: with its float32 copies, a block fills most of a 2 MiB L2 cache."""

THIN = 16
"""Number of rows or columns below which BLAS may sum a product in another order: one row is a gemv, and a few
rows use other kernels. MKL used them below 8 rows on an Intel Xeon and below 12 on an AMD EPYC.
"""

DEEP = 192
"""The rank above which BLAS may sum in parts: for MKL, above 384 on an Intel Xeon, and from 224 on an AMD
EPYC."""


ReadRows = Callable[[int, memoryview], None]
"""`read(first, into)` fills `into` with stored bytes of W from row `first` on. Raises `InvalidWeights`."""


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix as stored: little-endian bytes of `dtype` (F32, F16 or BF16), row-major."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoraTerm:
    """One update of one weight: scale · up @ down. `down` is lora_A, [r, in]; `up` lora_B, [out, r]."""

    down: StoredMatrix
    up: StoredMatrix
    scale: float


@dataclass(frozen=True, slots=True)
class KernelWeight:
    """A weight to merge: its dtype, the result's dtype, its stored size, and whether its rows are columns of
    the update (`is_transposed`: a Conv1D, stored [in, out]).
    """

    source_dtype: str
    dtype: str
    rows: int
    columns: int
    is_transposed: bool = False


class BlockTally(NamedTuple):
    """Facts about a merged block: whether all values are finite, and how many differ from the base's (None if
    that is not known).
    """

    is_finite: bool
    changed: int | None


class MergeKernel(ABC):
    """A kernel must not be shared between threads. `source` is the buffer into which the caller reads rows of
    W before `merge_rows`."""

    source: memoryview

    @staticmethod
    @abstractmethod
    def supports(weight: KernelWeight, rank: int) -> bool:
        """Whether this kernel merges terms whose ranks are `rank` together (0: none) into such a weight."""

    @abstractmethod
    def begin(self, weight: KernelWeight, terms: Sequence[LoraTerm]) -> None:
        """Sets the weight to which the following blocks belong. Without terms, only the dtype is changed."""

    def begin_formula(self, weight: KernelWeight, formula: RowFormula, read: ReadRows | None = None) -> None:
        """Like `begin`, for a change that is a formula; only for the kernel that supports formulas. Formulas
        that multiply W or combine it with partner rows need `read`, and call it during `merge_rows` too.

        Raises `InvalidWeights` if the formula's numbers do not fit the weight.
        """
        raise NotImplementedError

    @abstractmethod
    def merge_rows(self, first: int, rows: int) -> memoryview:
        """Adds the terms to rows [first, first + rows) of W, which are in `source`.

        Returns bytes of the result's dtype, valid until the next call. A NaN stays a NaN, but its bits may
        change.
        """

    def tally(self) -> BlockTally | None:
        """Facts about the values that the last `merge_rows` returned; None if nothing is known."""
        return None


def row_blocks(rows: int, row_bytes: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """(first, count) of blocks of rows with about `block` bytes and nearly equal sizes; no block is thin
    unless the weight is."""
    maximum = max(2 * THIN, block // max(1, row_bytes))
    blocks = max(1, -(-rows // maximum))
    cuts = [rows * index // blocks for index in range(blocks + 1)]
    for first, last in itertools.pairwise(cuts):
        yield first, last - first


def unit_blocks(rows: int, row_bytes: int, unit: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Like `row_blocks`, in multiples of a unit of rows; a unit that is larger than a block is divided."""
    if unit == 1:
        yield from row_blocks(rows, row_bytes, block)
        return
    if unit * row_bytes > block:
        for start in range(0, rows, unit):
            for first, count in row_blocks(min(unit, rows - start), row_bytes, block):
                yield start + first, count
        return
    step = max(block // (unit * row_bytes), -(-2 * THIN // unit)) * unit
    for first in range(0, rows, step):
        yield first, min(step, rows - first)


def block_buffer_size(rows: int, row_bytes: int, block: int = BLOCK) -> int:
    """Bytes of the largest block of `row_blocks`."""
    return max(count for _, count in row_blocks(rows, row_bytes, block)) * row_bytes
