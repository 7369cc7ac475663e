"""Products of factors in compiled code, in blocks that stay in a processor's cache, bit-equal to torch's."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptry.adapters.methods.row_formula import FormulaArrays, RowFormula
from adaptry.compute.tensors.kernel import KernelWeight, block_buffer_size, row_blocks


def can_compile(up: Tensor, down: Tensor) -> bool:
    """Whether compiled code multiplies these factors, [E, out, r] and [E, r, in]."""
    if not has_compiler():
        return False
    from adaptry.compute.tensors.llvm_kernel import LlvmKernel

    return LlvmKernel.supports(KernelWeight("F32", "F32", up.shape[1], down.shape[2]), down.shape[1])


@cache
def has_compiler() -> bool:
    return importlib.util.find_spec("llvmlite") is not None


def product_blocks(up: Tensor, down: Tensor) -> Iterator[NDArray[np.float32]]:
    """The products [E, out, in] in blocks of rows, in order, each valid until the next one."""
    from adaptry.compute.tensors.llvm_kernel import LlvmKernel

    weight = KernelWeight("F32", "F32", up.shape[1], down.shape[2])
    row_bytes = 4 * weight.columns
    kernel = LlvmKernel(block_buffer_size(weight.rows, row_bytes))
    np.frombuffer(kernel.source, np.float32)[:] = -0.0  # adding -0.0 changes no number
    for tall, wide in zip(up, down, strict=True):
        kernel.begin_formula(weight, _product(tall, wide))
        for first, count in row_blocks(weight.rows, row_bytes):
            block = np.frombuffer(kernel.merge_rows(first, count), np.float32)
            yield block.reshape(count, weight.columns)


def _product(up: Tensor, down: Tensor) -> RowFormula:
    return RowFormula("sum", len(down), lambda: FormulaArrays(((up.numpy(), down.numpy()),)))
