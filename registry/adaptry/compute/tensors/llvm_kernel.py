"""The fastest kernel, nearly as fast as memory: one pass over W in compiled code, without torch.

It supports weights that the compiled loop supports (unchanged dtype, rows with a multiple of 32 elements) and
that it sums in BLAS' order (neither thin nor deep products, see `kernel`). The torch kernel merges all
others.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptry.compute.tensors.kernel import DEEP, THIN, KernelWeight, LoraTerm, MergeKernel, StoredMatrix
from adaptry.compute.tensors.llvm_ir import WIDTH, CompiledLoop, is_supported

_compiled = lru_cache(maxsize=None)(CompiledLoop)  # one per dtype and process; 40 ms each


class LlvmKernel(MergeKernel):
    """For the CPU; releases the interpreter lock while it computes."""

    def __init__(self, capacity: int) -> None:
        maps = mmap.mmap(-1, capacity), mmap.mmap(-1, capacity)
        self.source, self._result = memoryview(maps[0]), memoryview(maps[1])
        self._from, self._to = (ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in maps)
        self._packed = _Packed([], False)
        self._kernel: CompiledLoop | None = None

    @staticmethod
    def supports(weight: KernelWeight, rank: int) -> bool:
        return (
            1 <= rank <= DEEP
            and weight.source_dtype == weight.dtype
            and weight.rows >= THIN
            and weight.columns > 0
            and weight.columns % WIDTH == 0
            and is_supported(weight.dtype)
        )

    def begin(self, weight: KernelWeight, terms: Sequence[LoraTerm]) -> None:
        self._kernel = _compiled(weight.dtype)
        self._packed = _Packed(terms, weight.is_transposed)

    def merge_rows(self, first: int, rows: int) -> memoryview:
        assert self._kernel is not None, "begin comes first"
        packed = self._packed
        up = packed.up.ctypes.data + 4 * first * packed.rank
        self._kernel.run(
            self._from, packed.down.ctypes.data, up, self._to, rows, packed.columns, packed.rank, packed.scale
        )
        return self._result[: rows * packed.columns * self._kernel.item]


class _Packed:
    """The updates of one weight, packed once for all its blocks.

    The scale of a single term is applied to the product, like in PEFT; several terms are scaled in `up` and
    stacked.
    """

    def __init__(self, terms: Sequence[LoraTerm], is_transposed: bool) -> None:
        if not terms:
            return
        downs, ups = [_wide(term.down) for term in terms], [_wide(term.up) for term in terms]
        self.scale = terms[0].scale
        if len(terms) > 1:
            ups = [up * np.float32(term.scale) for up, term in zip(ups, terms, strict=True)]
            self.scale = 1.0
        down, up = np.concatenate(downs), np.concatenate(ups, axis=1)
        if is_transposed:
            down, up = up.T, down.T
        self.rank, self.columns = down.shape
        tiles = down.reshape(self.rank, -1, WIDTH).transpose(1, 0, 2)
        self.down = np.ascontiguousarray(tiles, np.float32)
        self.up = np.ascontiguousarray(up, np.float32)


def _wide(factor: StoredMatrix) -> NDArray[Any]:
    """The factor in fp32."""
    match factor.dtype:
        case "F32":
            values: NDArray[Any] = np.frombuffer(factor.data, "<f4")
        case "F16":
            values = np.frombuffer(factor.data, "<f2").astype(np.float32)
        case _:
            values = (np.frombuffer(factor.data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return values.reshape(factor.shape)
