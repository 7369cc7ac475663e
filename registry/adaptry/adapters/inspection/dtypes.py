"""How each dtype of safetensors is measured: as floating-point numbers, or only whether every byte is zero.

8-bit formats are decoded through two tables with the bytes of the same number in bfloat16, which represents
all of them exactly. Integers and booleans have no norm: the values of a packed or quantised weight mean
nothing without its scales.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

BLOCK = 1 << 16
"""Numbers measured at once; as float64 they fit into a core's cache."""

WIDTHS: Mapping[str, int] = {
    "F64": 8, "F32": 4, "C64": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
"""Bytes per number, for the dtypes whose numbers are measured. A complex number counts as two."""


ONES: Mapping[str, bytes] = {
    "F64": struct.pack("<d", 1), "F32": struct.pack("<f", 1), "F16": struct.pack("<e", 1),
    "BF16": struct.pack("<f", 1)[2:], "F8_E4M3": b"\x38", "F8_E5M2": b"\x3c", "F8_E8M0": b"\x7f",
}  # fmt: skip
"""The bytes of the number 1."""


def _e4m3(code: int) -> float:
    """The 8-bit format without infinities: exponent bias 7, one NaN for each sign (OCP 8-bit Floating Point,
    1.0).
    """
    sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


def _e5m2(code: int) -> float:
    """The upper half of a float16."""
    return float(struct.unpack("<e", bytes((0, code)))[0])


def _e8m0(code: int) -> float:
    """A power of two without a sign; 255 is NaN (OCP Microscaling Formats, 1.0)."""
    return float("nan") if code == 255 else 2.0 ** (code - 127)


_EIGHT_BITS: Mapping[str, Callable[[int], float]] = {"F8_E4M3": _e4m3, "F8_E5M2": _e5m2, "F8_E8M0": _e8m0}


def bfloat16_tables(dtype: str) -> tuple[bytes, bytes]:
    """The low and the high bytes of each code's number in bfloat16 (256 bytes each), for an 8-bit dtype."""
    decode = _EIGHT_BITS[dtype]
    packed = [struct.pack("<f", decode(code)) for code in range(256)]
    assert all(number[:2] == b"\0\0" for number in packed), "bfloat16 holds them exactly"
    return bytes(number[2] for number in packed), bytes(number[3] for number in packed)
