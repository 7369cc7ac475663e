"""Sketches: a few hundred elements of a tensor, always at the same positions, that distinguish tensors.

A sketch has 16 runs of 16 elements, at positions that follow from the tensor's name and shape, so that every
copy of a model is sampled alike. The elements are stored exactly, and compared bit for bit, since a light
fine-tune would be within any tolerance.
"""

from __future__ import annotations

import base64
import hashlib
import math

from adaptry.adapters.base_record import Sketch
from adaptry.adapters.header import DTYPE_BITS, ReadAt, TensorInfo
from adaptry.core.errors import InvalidWeights

_RUNS = 16
_RUN = 16


def sketch_tensor(read: ReadAt, info: TensorInfo, name: str) -> Sketch:
    """The sampled elements of the tensor at `info`, whose normalised name is `name`; all elements if there
    are at most 256.
    """
    data = b"".join(_exactly(read, start, end - start, name) for start, end in sample_runs(info, name))
    return Sketch(samples=base64.b64encode(data).decode("ascii"))


def sample_runs(info: TensorInfo, name: str) -> list[tuple[int, int]]:
    """The positions of a tensor's sampled bytes: (start, end) in its file, in the order of the sketch."""
    if info.numel <= _RUNS * _RUN:
        return [(info.start, info.end)]
    width = DTYPE_BITS[info.dtype] // 8
    starts = (info.start + start * width for start in _starts(name, info.shape))
    return [(start, start + _RUN * width) for start in starts]


def sample_positions(name: str, shape: tuple[int, ...]) -> list[int]:
    """The sampled elements of a tensor, by their index in flat order."""
    count = math.prod(shape)
    if count <= _RUNS * _RUN:
        return list(range(count))
    return [start + step for start in _starts(name, shape) for step in range(_RUN)]


def _starts(name: str, shape: tuple[int, ...]) -> list[int]:
    """The first element of each run, from sha256(name ‖ shape ‖ i)."""
    last = math.prod(shape) - _RUN + 1
    text = f"{name}\t{list(shape)}\t"
    return [
        int.from_bytes(hashlib.sha256(f"{text}{run}".encode()).digest()[:8], "big") % last
        for run in range(_RUNS)
    ]


def _exactly(read: ReadAt, offset: int, length: int, name: str) -> bytes:
    data = read(offset, length)
    if len(data) != length:
        raise InvalidWeights(f"the file ended inside {name}; is the download complete?")
    return data
