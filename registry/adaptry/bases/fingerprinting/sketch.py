"""Sketches: a few hundred elements of a tensor, always the same ones, that tell tensors apart.

16 runs of 16 elements, at places that follow from the tensor's name and shape, so that every copy of a model
is asked the same question, whatever its files look like. Stored exactly: equality is of bits, not within a
tolerance, since a light fine-tune hides inside any tolerance.
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
    """The sampled elements of the tensor at `info`, whose normalised name is `name`; all if up to 256."""
    data = b"".join(_exactly(read, start, end - start, name) for start, end in sample_runs(info, name))
    return Sketch(samples=base64.b64encode(data).decode("ascii"))


def sample_runs(info: TensorInfo, name: str) -> list[tuple[int, int]]:
    """Where the sampled bytes of a tensor lie: (start, end) in its file, in the order of the sketch."""
    if info.numel <= _RUNS * _RUN:
        return [(info.start, info.end)]
    width = DTYPE_BITS[info.dtype] // 8
    starts = (info.start + start * width for start in _starts(name, info.shape))
    return [(start, start + _RUN * width) for start in starts]


def sample_positions(name: str, shape: tuple[int, ...]) -> list[int]:
    """Which elements are sampled of a tensor, by their index in its flat order."""
    count = math.prod(shape)
    if count <= _RUNS * _RUN:
        return list(range(count))
    return [start + step for start in _starts(name, shape) for step in range(_RUN)]


def _starts(name: str, shape: tuple[int, ...]) -> list[int]:
    """Where each run begins, in elements: of sha256(name ‖ shape ‖ i)."""
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
