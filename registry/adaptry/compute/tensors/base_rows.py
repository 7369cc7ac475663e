"""Reads rows of a weight again during a merge: for a product with the whole weight, or for partners of rows.

The weight is read in the merge's blocks of rows, so the memory does not depend on its size.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from adaptry.compute.tensors.kernel import KernelWeight, row_blocks
from adaptry.compute.tensors.llvm_ir import WIDTH, compile_once
from adaptry.compute.tensors.packed_factors import require_shape
from adaptry.compute.tensors.product_ir import DECLARE_FMA, RANKS, add_source
from adaptry.core.compiled_module import CompiledModule

LoadRows = Callable[[int, int, int], None]
"""`load(first, rows, address)` fills the memory at `address` with rows of W."""

Floats = NDArray[np.float32]


class _CompiledSum:
    def __init__(self, dtype: str) -> None:
        self._module = CompiledModule(DECLARE_FMA + add_source(dtype))
        self.add = self._module.function("add", *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 4)


_SUMMED = 64
"""Rows that are added in float32. Sums of a whole block, which has thousands of short rows, would be less
exact than PEFT's."""
_compiled = compile_once(_CompiledSum)  # one per dtype and process


def left_product(left: Floats, weight: KernelWeight, load: LoadRows, address: int) -> NDArray[np.float64]:
    """leftᵀ·W [r, in] for `left` [out, r]. W is read once, in blocks that are loaded at `address`.

    Raises `InvalidWeights` if `left` and W have different numbers of rows.
    """
    require_shape(left.shape, (weight.rows, left.shape[1]))
    factors = padded_ranks(left)
    ranks = factors.shape[1]
    total = np.zeros((ranks, weight.columns))
    add = _compiled(weight.dtype).add
    for first, rows in row_blocks(weight.rows, row_bytes(weight)):
        load(first, rows, address)
        for start in range(0, rows, _SUMMED):
            add(
                address + start * row_bytes(weight),
                factors.ctypes.data + 4 * (first + start) * ranks,
                total.ctypes.data,
                *(weight.columns // WIDTH, min(_SUMMED, rows - start), weight.columns, ranks),
            )
    return total[: left.shape[1]]


def padded_ranks(factor: Floats) -> Floats:
    """`factor` [n, r], padded with zero columns until their number is a multiple of `RANKS`."""
    padded = np.zeros((len(factor), -(-factor.shape[1] // RANKS) * RANKS), np.float32)
    padded[:, : factor.shape[1]] = factor
    return padded


def row_bytes(weight: KernelWeight) -> int:
    return weight.columns * (4 if weight.dtype == "F32" else 2)


class PartnerRows:
    """Finds the partners of a block's rows. A row's partner is in the other half of its group of rows."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._memory: mmap.mmap | None = None

    def runs(
        self, first: int, rows: int, half: int, width: int, block: int, load: LoadRows
    ) -> Iterator[tuple[int, int, int]]:
        """Divides a block of rows into parts, and yields (row, count, address of the partners) for each. The
        block is at address `block`; a row has `width` bytes. Partners outside the block are loaded, and are
        valid until the next part.
        """
        row, end = first, first + rows
        while row < end:
            count = min(half - row % half, end - row)
            partner = row + half if row // half % 2 == 0 else row - half
            if first <= partner and partner + count <= end:
                yield row, count, block + (partner - first) * width
            else:
                address = self._address()
                load(partner, count, address)
                yield row, count, address
            row += count

    def _address(self) -> int:
        self._memory = self._memory or mmap.mmap(-1, self._capacity)
        return ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
