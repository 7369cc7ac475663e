"""The shape of a weight that torchao quantised: in the metadata of its file if the codes have another.

The metadata has an entry for each weight, a JSON object with the class of the tensor and its attributes
(torchao `prototype/safetensors`). Float8, Int8 and Intx weights have a code for each value.
"""

from __future__ import annotations

import math

from adaptry.adapters.header import TensorInfo
from adaptry.core import strictjson
from adaptry.core.errors import Invalid

_LIMITS = strictjson.JsonLimits(size=4096, depth=8, nodes=256)
_WHOLE = ("I8", "F8_E4M3", "F8_E5M2")


def shape_of_torchao(entry: str | None, codes: TensorInfo) -> tuple[int, ...] | None:
    """The weight's shape; None if it is unknown or does not match the number of codes."""
    if codes.dtype in _WHOLE:
        return codes.shape
    try:
        document = strictjson.loads((entry or "").encode(), _LIMITS, "the metadata of a weight")
    except Invalid:
        return None
    attributes = document.get("_data") if isinstance(document, dict) else None
    written = attributes.get("shape") if isinstance(attributes, dict) else None
    if isinstance(written, list) and written and all(isinstance(side, int) and side > 0 for side in written):
        shape = tuple(written)
    elif codes.dtype == "U8" and codes.shape:  # two values in a byte (NVFP4, MXFP4)
        shape = (*codes.shape[:-1], 2 * codes.shape[-1])
    else:
        return None
    return shape if 2 * codes.size >= math.prod(shape) else None
