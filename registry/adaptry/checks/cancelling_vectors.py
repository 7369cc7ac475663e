"""Finds modules of HRA whose vectors cancel in pairs, as PEFT draws them before training.

Each reflection is then followed by the same one, and two equal reflections are the identity. Only bytes are
compared. The vectors of a trained module already differ in their first elements, so nothing more of it is
read.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import PEFT
from adaptry.adapters.header import DTYPE_BITS, TensorInfo
from adaptry.core.errors import InvalidWeights

_BLOCK = 1 << 20  # bytes read at once
_SIGNED_ZEROS = b"\x00\x80"
"""The bytes of a zero of either sign, in every dtype."""


def modules_that_cancel(adapter: Adapter) -> frozenset[str]:
    """The paths of the modules whose reflections cancel. With `apply_GS`, none are found: PEFT makes the
    second vector of a pair orthogonal to the first, which leaves only the rounding of their difference.
    """
    if adapter.spec.method != "hra" or adapter.format is not PEFT or adapter.config.flag("apply_GS"):
        return frozenset()
    return frozenset(
        module.path
        for module in adapter.spec.modules
        if _is_cancelling(adapter, adapter.tensors[module.tensors["u"]])
    )


def _is_cancelling(adapter: Adapter, info: TensorInfo) -> bool:
    """Whether columns 0 and 1, 2 and 3, … of a matrix [in, r] are equal, and none is zero, which PEFT would
    divide by.
    """
    bits, rank = DTYPE_BITS[info.dtype], info.shape[1]
    if bits % 8 or not info.numel or rank % 2:
        return False
    width = bits // 8
    zero_columns = set(range(0, rank, 2))
    for rows in _blocks_of_rows(adapter, info, rank * width):
        if any(rows[at :: 2 * width] != rows[at + width :: 2 * width] for at in range(width)):
            return False
        zero_columns = {column for column in zero_columns if _is_zero(rows, column, rank, width)}
    return not zero_columns


def _blocks_of_rows(adapter: Adapter, info: TensorInfo, row: int) -> Iterator[bytes]:
    """The first row alone, then the other rows in blocks."""
    read = adapter.content.reader(adapter.format.weights)
    at, size = info.start, row
    while at < info.end:
        size = min(size, info.end - at)
        data = read(at, size)
        if len(data) != size:
            raise InvalidWeights("the weights file ended inside a vector; is the download complete?")
        yield data
        at, size = at + size, max(1, _BLOCK // row) * row


def _is_zero(rows: bytes, column: int, rank: int, width: int) -> bool:
    return not any(
        rows[column * width + at :: rank * width].translate(None, _SIGNED_ZEROS) for at in range(width)
    )
