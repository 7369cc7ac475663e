"""Whether one set of sampled numbers is an exact dtype cast of another.

A cast of the same weights is recognised if some sequence of roundings makes the samples equal, bit for bit.
Closeness is a separate function, because a light fine-tune is close too.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator

from adaptry.bases.fingerprinting.bfloat16 import bfloat16_of, float_of

_Values = tuple[float, ...]
_FORMATS = {"F32": "f", "F16": "e", "F64": "d"}


def find_cast(dtype_a: str, samples_a: str, dtype_b: str, samples_b: str) -> str | None:
    """The cast that makes the samples equal, in words (`equal` if none is needed), or None.

    Samples are base64 of stored elements, in the given dtype.
    """
    if samples_a == samples_b and dtype_a == dtype_b:
        return "equal"
    a, b = _values(dtype_a, samples_a), _values(dtype_b, samples_b)
    if a is None or b is None or len(a) != len(b):
        return None
    if not _are_close(a, b):
        return None  # no rounding moves a value that far; most pairs end here
    bits_a, bits_b = _bits(a), _bits(b)
    if bits_a == bits_b:
        return "a change of dtype"
    # Only one side is rounded: rounding both would mistake a fine-tune that is smaller than the rounding for
    # a cast.
    for name, chain in _CHAINS.items():
        if _bits(chain(a)) == bits_b or bits_a == _bits(chain(b)):
            return f"a cast to {name}"
    return None


def sample_casts(dtype: str, samples: str) -> Iterator[tuple[float, ...]]:
    """The sampled numbers unchanged, then after each sequence of roundings; empty if they are not floats."""
    values = _values(dtype, samples)
    if values is not None:
        yield values
        for chain in _CHAINS.values():
            yield chain(values)


def is_close(dtype_a: str, samples_a: str, dtype_b: str, samples_b: str) -> bool:
    """Whether the values differ by at most two roundings to bfloat16."""
    a, b = _values(dtype_a, samples_a), _values(dtype_b, samples_b)
    if a is None or b is None or len(a) != len(b):
        return False
    return _are_close(a, b)


def _are_close(a: _Values, b: _Values) -> bool:
    return all(abs(x - y) <= 2**-7 * abs(x) + 2**-24 for x, y in zip(a, b, strict=True))


def _values(dtype: str, samples: str) -> _Values | None:
    data = base64.b64decode(samples)
    if dtype == "BF16":
        return tuple(float_of(bits) for bits in struct.unpack(f"<{len(data) // 2}H", data))
    letter = _FORMATS.get(dtype)
    if letter is None:
        return None
    return struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data)


def _bits(values: _Values) -> bytes:
    """The bytes of the values as float64, in which −0.0 differs from 0.0 and a NaN equals itself."""
    return struct.pack(f"<{len(values)}d", *values)


def _to_bfloat16(values: _Values) -> _Values:
    return tuple(float_of(bfloat16_of(_single(value))) for value in values)


def _to_float16(values: _Values) -> _Values:
    return tuple(_half(value) for value in values)


def _single(value: float) -> float:
    """The value rounded to float32; too large a value becomes infinite, as in torch."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _half(value: float) -> float:
    try:
        return float(struct.unpack("<e", struct.pack("<e", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


_CHAINS: dict[str, Callable[[_Values], _Values]] = {
    "bfloat16": _to_bfloat16,
    "float16": _to_float16,
    "float16 and then bfloat16": lambda values: _to_bfloat16(_to_float16(values)),
    "bfloat16 and then float16": lambda values: _to_float16(_to_bfloat16(values)),
}
