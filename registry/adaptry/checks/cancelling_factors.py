"""Finds modules of a LoRA whose two factors cancel, as PEFT's "orthogonal" initialisation makes them.

Neither factor is zero, but B·A is, up to rounding, so the adapter changes nothing until one of them is
trained. A training step changes every row of a factor, so a few elements of B·A show it. Only float32 and
float64 are precise enough: rounded to fewer bits, the factors no longer cancel.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from operator import mul
from random import Random

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import PEFT
from adaptry.adapters.header import TensorInfo
from adaptry.core.errors import InvalidWeights

_FORMATS = {"F32": "f", "F64": "d"}
_SAMPLES = 32  # elements of B·A of each module
_ROUNDING = 2.0**-18
"""Largest element, relative to the norms of its row of B and its column of A, that counts as rounding. PEFT's
are up to 2⁻²¹; one step of training at a learning rate of 1e-5 gives 2⁻¹².
"""


def modules_that_cancel(adapter: Adapter) -> frozenset[str]:
    """The paths of the modules whose factors cancel, judged by a sample of elements."""
    if "orthogonal" not in adapter.spec.traits or adapter.format is not PEFT:
        return frozenset()
    read = adapter.content.reader(adapter.format.weights)
    return frozenset(
        module.path
        for module in adapter.spec.modules
        if module.tensors.keys() == {"A", "B"}
        and _is_cancelling(read, *(adapter.tensors[module.tensors[role]] for role in ("A", "B")))
    )


def _is_cancelling(read: Callable[[int, int], bytes], a: TensorInfo, b: TensorInfo) -> bool:
    """Whether sampled elements of B [out, r, …] times A [r, in, …] are zero."""
    rank = a.shape[0]
    if a.dtype not in _FORMATS or b.dtype not in _FORMATS or b.numel % rank or not a.numel * b.numel:
        return False
    rows, columns = b.numel // rank, a.numel // rank
    for row, column in _samples(rows, columns):
        of_b = _numbers(read, b, range(row * rank, (row + 1) * rank))
        of_a = _numbers(read, a, range(column, a.numel, columns))
        largest = math.hypot(*of_a) * math.hypot(*of_b) * _ROUNDING
        if not abs(sum(map(mul, of_a, of_b))) <= largest:
            return False
    return True


def _samples(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Positions that are spread over the matrix, always the same ones."""
    random = Random(0)
    for _ in range(_SAMPLES):
        yield random.randrange(rows), random.randrange(columns)


def _numbers(read: Callable[[int, int], bytes], info: TensorInfo, places: range) -> list[float]:
    """The numbers at these positions of a tensor."""
    letter = _FORMATS[info.dtype]
    if places.step == 1:
        return _unpacked(read, info, places.start, len(places), letter)
    return [_unpacked(read, info, place, 1, letter)[0] for place in places]


def _unpacked(
    read: Callable[[int, int], bytes], info: TensorInfo, first: int, count: int, letter: str
) -> list[float]:
    size = struct.calcsize(letter)
    data = read(info.start + first * size, count * size)
    if len(data) != count * size:
        raise InvalidWeights("the weights file ended inside a factor; is the download complete?")
    return list(struct.unpack(f"<{count}{letter}", data))
