"""What only the weights can tell: values that are no numbers, and factors that never learned anything.

A float that is not finite shows in its highest bits. Where numpy is there, the largest magnitude of a piece, taken as a
whole number, clears it at nearly the speed of memory; where it is not, a search for a few values of the highest byte
does, more slowly. Only the pieces left over are decoded.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from adaptry.adapter.header import TensorInfo
from adaptry.adapter.view import Adapter
from adaptry.checks.codes import finding
from adaptry.checks.magnitudes import largest_magnitude
from adaptry.checks.wording import counted, folded, shortened
from adaptry.fingerprinting.bfloat16 import float_of
from adaptry.report import Finding

# PEFT's roles, then those of AdapterHub, MLX and kohya.
_FACTORS = ("A", "B", "embedding_A", "embedding_B", "lora_A", "lora_B", "lora_a", "lora_b", "lora_up.weight")
_PIECE = 256 << 10  # stays in a core's cache


@dataclass(frozen=True, slots=True)
class _Format:
    """A float's width in bytes, the highest bytes that a NaN or an infinity can have, and the least bits, without the
    sign, of what is not finite."""

    width: int
    suspects: re.Pattern[bytes]
    not_finite: int


_FORMATS = {
    "F64": _Format(8, re.compile(rb"[\x7f\xff]"), 0x7FF0 << 48),
    "F32": _Format(4, re.compile(rb"[\x7f\xff]"), 0x7F80 << 16),
    "BF16": _Format(2, re.compile(rb"[\x7f\xff]"), 0x7F80),
    "F16": _Format(2, re.compile(rb"[\x7c-\x7f\xfc-\xff]"), 0x7C00),
    "F8_E5M2": _Format(1, re.compile(rb"[\x7c-\x7f\xfc-\xff]"), 0x7C),
    "F8_E4M3": _Format(1, re.compile(rb"[\x7f\xff]"), 0x7F),
}


def check_weights(adapter: Adapter) -> list[Finding]:
    """Reads every tensor once: NaN, infinities, and B factors that are all zero."""
    nan: list[str] = []
    infinite: list[str] = []
    zero: set[str] = set()
    for name, info in adapter.tensors.items():
        seen = _look(adapter, info)
        if seen.has_nan:
            nan.append(name)
        if seen.has_infinity:
            infinite.append(name)
        if seen.is_zero:
            zero.add(name)
    return [*_not_finite(nan, infinite), *_untrained(adapter, zero)]


def _not_finite(nan: list[str], infinite: list[str]) -> Iterator[Finding]:
    if nan:
        yield finding("weights_nan", f"NaN in {counted(len(nan), 'tensor')}: {shortened(folded(nan))}", nan)
    if infinite:
        reason = f"infinite values in {counted(len(infinite), 'tensor')}: {shortened(folded(infinite))}"
        yield finding("weights_infinite", reason, infinite)


def _untrained(adapter: Adapter, zero: set[str]) -> Iterator[Finding]:
    """PEFT starts B at zero (and an embedding's A), so a factor still at zero was never trained."""
    modules = adapter.spec.modules
    idle = [module.path for module in modules if any(module.tensors.get(role) in zero for role in _FACTORS)]
    if idle and len(idle) == len(modules) and not adapter.spec.extras:
        yield finding("untrained", f"all {counted(len(idle), 'module')} have a factor of zeros", idle)
    elif idle:
        yield finding("modules_untrained", f"{shortened(folded(idle))}: a factor is all zeros", idle)


@dataclass(slots=True)
class _Seen:
    """What one tensor holds, as far as it was read."""

    has_nan: bool = False
    has_infinity: bool = False
    is_zero: bool = True


def _look(adapter: Adapter, info: TensorInfo) -> _Seen:
    seen = _Seen(is_zero=info.size > 0)
    kind = _FORMATS.get(info.dtype)
    magnitude_of = largest_magnitude()
    for start in range(info.start, info.end, _PIECE):
        data = adapter.content.read(adapter.format.weights, start, min(_PIECE, info.end - start))
        largest = magnitude_of(data, kind.width) if kind and magnitude_of else None
        if seen.is_zero:
            seen.is_zero = _is_zero(data, kind.width if kind else 1) if largest is None else largest == 0
        if kind and (largest is None or largest >= kind.not_finite):
            for value in _suspects(data, info.dtype, kind):
                seen.has_nan |= math.isnan(value)
                seen.has_infinity |= math.isinf(value)
                if seen.has_nan and seen.has_infinity:
                    break
    return seen


def _is_zero(data: bytes, width: int) -> bool:
    """All bytes 0, but that a negative zero has its highest bit set."""
    if any(data[: width - 1]) or data[width - 1] not in (0, 0x80):
        return False  # the first element says it of nearly every tensor
    if data.count(0) == len(data):
        return True
    highest = data[width - 1 :: width]
    zeros = highest.count(0)
    return zeros + highest.count(0x80) == len(highest) and data.count(0) == len(data) - len(highest) + zeros


def _suspects(data: bytes, dtype: str, kind: _Format) -> Iterator[float]:
    for found in kind.suspects.finditer(data[kind.width - 1 :: kind.width]):
        at = found.start() * kind.width
        yield _value(data[at : at + kind.width], dtype)


def _value(element: bytes, dtype: str) -> float:
    match dtype:
        case "F64":
            return float(struct.unpack("<d", element)[0])
        case "F32":
            return float(struct.unpack("<f", element)[0])
        case "F16":
            return float(struct.unpack("<e", element)[0])
        case "BF16":
            return float_of(int.from_bytes(element, "little"))
        case "F8_E5M2":
            return float(struct.unpack("<e", b"\0" + element)[0])  # the upper half of a float16
        case _:
            return math.nan  # F8_E4M3 has no infinity
