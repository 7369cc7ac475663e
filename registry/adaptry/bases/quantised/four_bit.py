"""The state that bitsandbytes writes with 4-bit codes, parsed strictly: an inconsistent state is not
recognised.

`quant_state.bitsandbytes__nf4` is a tensor of bytes that hold a JSON object (bitsandbytes
`QuantState.as_dict`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from adaptry.bases.quantised.packed_weight import CODES, FourBitState, PackedPart
from adaptry.core import strictjson
from adaptry.core.errors import Invalid

MAX_BLOCK = 4096
"""Maximum size of a state in bytes; real ones have fewer than 200."""

_LIMITS = strictjson.JsonLimits(size=MAX_BLOCK, depth=3, nodes=64)
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BLOCKSIZES = frozenset(2**power for power in range(5, 13))
_CODES = 16
_NESTED_CODES = 256


def parse_four_bit_state(
    data: bytes, parts: Mapping[str, PackedPart]
) -> tuple[tuple[int, ...], FourBitState] | None:
    """The weight's shape and state; None unless every other tensor has the size that they imply."""
    try:
        document = strictjson.loads(data, _LIMITS, "quant_state")
    except Invalid:
        return None
    if not isinstance(document, dict):
        return None
    shape, blocksize = _sides(document.get("shape")), document.get("blocksize")
    dtype = _DTYPES.get(str(document.get("dtype")))
    if shape is None or not isinstance(blocksize, int) or blocksize not in _BLOCKSIZES or dtype is None:
        return None
    count = math.prod(shape)
    blocks = -(-count // blocksize)
    scales = parts.get("absmax")
    if scales is None or scales.info.numel != blocks or not _is_table(parts.get("quant_map"), _CODES):
        return None
    codes = parts[CODES].info
    is_row = codes.shape[:1] == (1,) and codes.numel > 1  # an old format, in which the weight is transposed
    if codes.size != (count + 1) // 2 or is_row:
        return None
    if scales.info.dtype == "F32":
        return shape, FourBitState(blocksize, dtype)
    nested = _nested(document, parts, blocks)
    if scales.info.dtype != "U8" or nested is None:
        return None
    return shape, FourBitState(blocksize, dtype, *nested)


def _sides(written: object) -> tuple[int, int] | None:
    """The shape of a matrix in a state; None if it is malformed."""
    match written:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    return None


def _nested(
    document: Mapping[str, object], parts: Mapping[str, PackedPart], blocks: int
) -> tuple[int, float] | None:
    """The number of scales that share a scale, and the offset that is added to each."""
    size, offset = document.get("nested_blocksize"), document.get("nested_offset")
    scales = parts.get("nested_absmax")
    if not isinstance(size, int) or size <= 0 or not isinstance(offset, int | float) or scales is None:
        return None
    is_whole = scales.info.dtype == "F32" and scales.info.numel == -(-blocks // size)
    is_whole = is_whole and document.get("nested_dtype") == "float32"
    return (
        (size, float(offset))
        if is_whole and _is_table(parts.get("nested_quant_map"), _NESTED_CODES)
        else None
    )


def _is_table(part: PackedPart | None, entries: int) -> bool:
    return part is not None and (part.info.dtype, part.info.shape) == ("F32", (entries,))
