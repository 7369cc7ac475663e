"""Runs kernels as a merge does: weights and factors as bytes, block after block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from adaptry.compute.tensors.kernel import KernelWeight, LoraTerm, StoredMatrix, block_buffer_size, row_blocks

torch = pytest.importorskip("torch")
pytest.importorskip("llvmlite")

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def raw(tensor: Any) -> bytes:
    """The bytes of a torch tensor. (`Any`: torch is missing where these tests are skipped.)"""
    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def term(up: Any, down: Any, scale: float) -> LoraTerm:
    names = {dtype: name for name, dtype in DTYPES.items()}
    return LoraTerm(
        StoredMatrix(raw(down), names[down.dtype], tuple(down.shape)),
        StoredMatrix(raw(up), names[up.dtype], tuple(up.shape)),
        scale,
    )


def merged(
    kernel: Any, stored: Any, terms: Sequence[LoraTerm], *, transposed: bool = False, into: Any = None
) -> Any:
    """`stored` after a kernel has added the terms."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    rows, columns = stored.shape
    dtype = into or stored.dtype
    weight = KernelWeight(names[stored.dtype], names[dtype], rows, columns, transposed)
    assert kernel.supports(weight, sum(term.down.shape[0] for term in terms))
    row_bytes = columns * stored.element_size()
    worker = kernel(block_buffer_size(rows, row_bytes))
    worker.begin(weight, terms)
    source, result = raw(stored), bytearray()
    for first, count in row_blocks(rows, row_bytes):
        worker.source[: count * row_bytes] = source[first * row_bytes : (first + count) * row_bytes]
        result += worker.merge_rows(first, count)
    return torch.frombuffer(result, dtype=dtype).view(rows, columns)
