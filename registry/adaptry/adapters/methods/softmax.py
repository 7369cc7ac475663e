"""Softmax over a few numbers without torch, bit-equal to torch's on a CPU.

torch computes `exp` by SLEEF's `expf_u10`, multiplies by the reciprocal of the sum, and adds in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from adaptry.adapters.methods.row_formula import Floats

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.428606765330187045e-06
_SERIES = (
    0.000198527617612853646278381,
    0.00139304355252534151077271,
    0.00833336077630519866943359,
    0.0416664853692054748535156,
    0.166666671633720397949219,
    0.5,
)


def softmax(numbers: Floats) -> Floats:
    """Over the last dimension."""
    import numpy as np

    powers = _exp(numbers - numbers.max(axis=-1, keepdims=True))
    total = powers[..., :1].copy()
    for place in range(1, powers.shape[-1]):
        total += powers[..., place : place + 1]
    return powers * (np.float32(1) / total)


def _exp(numbers: Floats) -> Floats:
    """`Sleef_expf_u10` of numbers up to zero."""
    import numpy as np

    twos = np.rint(numbers * np.float32(_LOG2_E))
    rest = _fma(twos, np.float32(-_LN2_HIGH), numbers)
    rest = _fma(twos, np.float32(-_LN2_LOW), rest)
    series: Floats = np.full_like(rest, _SERIES[0])
    for coefficient in _SERIES[1:]:
        series = _fma(series, rest, np.float32(coefficient))
    found = np.ldexp(np.float32(1) + _fma(rest * rest, series, rest), twos.astype(np.int32))
    return np.where(numbers < np.float32(-104), np.float32(0), found)


def _fma(first: Floats, second: Floats | np.float32, third: Floats | np.float32) -> Floats:
    """first · second + third in float32, rounded once.

    The product is exact in float64. Its sum is rounded to odd, so that rounding it again to float32 is right.
    """
    import numpy as np

    product = first.astype(np.float64) * second
    added = np.broadcast_to(np.asarray(third, np.float64), product.shape)
    total = product + added
    back = total - product
    missing = (product - (total - back)) + (added - back)
    bits: NDArray[np.int64] = total.view(np.int64)
    nudge = np.where((missing > 0) == (total > 0), 1, -1)
    nearest = bits + np.where((missing != 0) & (bits & 1 == 0), nudge, 0)
    return nearest.view(np.float64).astype(np.float32)
