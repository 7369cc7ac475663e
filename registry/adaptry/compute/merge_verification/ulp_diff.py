"""The difference of two runs of values: compares bytes first, then units in the last place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    import numpy

MAX_DISTANCE = (1 << 31) - 1
"""The difference between a number and NaN, which is also the largest count."""

# For each merged dtype: numpy's integer type, the bits without the sign, and those of infinity.
_BITS = {
    "F32": ("<i4", 0x7FFFFFFF, 0x7F800000),
    "F16": ("<i2", 0x7FFF, 0x7C00),
    "BF16": ("<i2", 0x7FFF, 0x7F80),
}


@dataclass(slots=True)
class UlpDiff:
    """The counts of a tensor. `ulp` is None for dtypes that are not counted here."""

    dtype: str
    elements: int = 0
    differing: int = 0
    largest: int = 0

    @property
    def ulp(self) -> int | None:
        return self.largest if self.dtype in _BITS else None

    @property
    def share(self) -> float:
        return self.differing / self.elements if self.elements else 0.0

    def add(self, found: memoryview | bytes, wanted: memoryview | bytes, width: int) -> None:
        """Adds two runs of the same elements, each of `width` bytes."""
        import numpy

        one = numpy.frombuffer(found, numpy.uint8)
        two = numpy.frombuffer(wanted, numpy.uint8)
        self.elements += len(one) // width
        if numpy.array_equal(one, two):
            return
        if self.dtype not in _BITS:
            self.differing += int((one.reshape(-1, width) != two.reshape(-1, width)).any(axis=1).sum())
            return
        word, _, _ = _BITS[self.dtype]
        left, right = one.view(word), two.view(word)
        at = numpy.flatnonzero(left != right)
        self.differing += len(at)
        self.largest = max(self.largest, _max_ulp_difference(left[at], right[at], self.dtype))


def _max_ulp_difference(one: numpy.ndarray[Any, Any], two: numpy.ndarray[Any, Any], dtype: str) -> int:
    """The largest difference in units; +0 and -0 are equal. (`Any`: the stubs' shape and dtype.)"""
    import numpy

    _, unsigned, infinity = _BITS[dtype]
    places = []
    nans = []
    for bits in (one.astype(numpy.int64), two.astype(numpy.int64)):
        magnitude = bits & unsigned
        places.append(numpy.where(bits < 0, -magnitude, magnitude))
        nans.append(magnitude > infinity)
    apart = numpy.abs(places[0] - places[1])
    apart = numpy.where(nans[0] & nans[1], 0, numpy.where(nans[0] | nans[1], MAX_DISTANCE, apart))
    return min(MAX_DISTANCE, int(apart.max()))
