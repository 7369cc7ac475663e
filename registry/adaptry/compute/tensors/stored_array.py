"""Stored tensors as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_STORED = {
    "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
}  # fmt: skip
READABLE = frozenset(_STORED)
"""Dtypes of tensors that can be read as arrays."""
FLOATS = frozenset(["F32", "F16", "BF16"])
"""Those of them that become float32."""


def as_array(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Stored bytes as an array: floats in float32, integers unchanged. Raises `KeyError` for other dtypes."""
    stored: NDArray[Any] = np.frombuffer(data, _STORED[dtype])
    if dtype == "F16":
        stored = stored.astype(np.float32)
    elif dtype == "BF16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.reshape(shape)
