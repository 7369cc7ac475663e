"""Numbers that a tool stores as tensors of one element: the alphas of kohya's and of some of diffusers'
files.

They are settings and not weights, so they are read with the headers: two to eight bytes each.
"""

from __future__ import annotations

import math
import struct

from adaptry.adapters.header import ReadAt, TensorInfo
from adaptry.core.errors import InvalidWeights

_CODES = {
    "F64": "<d",
    "F32": "<f",
    "F16": "<e",
    "I64": "<q",
    "I32": "<i",
    "I16": "<h",
    "U8": "<B",
    "I8": "<b",
}


def read_scalar(name: str, info: TensorInfo, read: ReadAt) -> float:
    """The number in a tensor of one element. Raises `InvalidWeights` if it has more elements or is not
    finite.
    """
    if info.numel != 1 or info.dtype not in {*_CODES, "BF16"}:
        raise InvalidWeights(f"{name} must be one number, and is {info.dtype} {list(info.shape)}")
    data = read(info.start, info.size)
    if len(data) != info.size:
        raise InvalidWeights(f"the file ended inside {name}; is it still being written?")
    if info.dtype == "BF16":  # the upper half of a float32
        value = float(struct.unpack("<f", b"\0\0" + data)[0])
    else:
        value = float(struct.unpack(_CODES[info.dtype], data)[0])
    if not math.isfinite(value):
        raise InvalidWeights(f"{name} is {value}: the training diverged, or the file is damaged")
    return value
