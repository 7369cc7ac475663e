"""Whether one base is a quantised copy of another: unpacked weights are equal, packed ones round to the
codes.

Quantisation usually leaves norms and embeddings unchanged, but so does a fine-tune. Therefore, if the codes
allow it (those of bitsandbytes do), every sampled value of the original must lie in its code's range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptry.adapters.base_record import BaseRecord, Match, Sketch, TensorShape
from adaptry.bases.fingerprinting.dtype_cast import find_cast
from adaptry.bases.fingerprinting.packed_sketch import may_share_a_source, rounds_to
from adaptry.core.lazy_dataclass import dataclass

_MIN_SAMPLES = 3
_QUANTISED_DTYPES = frozenset(["I8", "U8", "I32", "U32", "F8_E4M3", "F8_E5M2"])
_FLOATS = frozenset(["F32", "F16", "BF16", "F64"])


@dataclass(frozen=True, slots=True)
class SampledWeight:
    """A weight of a base, as its record describes it."""

    tensor: TensorShape
    sketch: Sketch

    @property
    def is_packed(self) -> bool:
        return self.tensor.dtype in _QUANTISED_DTYPES


def is_quantised(facts: Mapping[str, Any], dtypes: Iterable[str]) -> bool:
    """Whether a base with these facts and dtypes has packed or rounded weights. (`Any`: facts are JSON.)"""
    return bool(facts.get("quantization")) or not _QUANTISED_DTYPES.isdisjoint(dtypes)


def is_packed(record: BaseRecord) -> bool:
    """Whether a record's base has packed or rounded weights."""
    return is_quantised(record.facts, (tensor.dtype for tensor in record.tensors.values()))


def match_quantised(
    a: BaseRecord, b: BaseRecord, ours: Mapping[str, SampledWeight], theirs: Mapping[str, SampledWeight]
) -> Match | None:
    """Compares two bases, at least one of them quantised, by their weights under normalised names; None if
    they do not look like copies of one model. Tensors that only one of them has (unrecognised packed ones)
    are ignored.
    """
    pairs = {
        name: (ours[name], theirs[name])
        for name in ours.keys() & theirs.keys()
        if ours[name].tensor.shape == theirs[name].tensor.shape
    }
    kept = [pair for pair in pairs.values() if not pair[0].is_packed and not pair[1].is_packed]
    has_matrix = any(len(mine.tensor.shape) > 1 for mine, _ in kept)
    if len(kept) < _MIN_SAMPLES or not has_matrix or not all(_are_equal(*pair) for pair in kept):
        return None
    matches = {
        name: found for name, pair in pairs.items() if (found := _may_be_equal(a, b, *pair)) is not None
    }
    method = " and ".join(
        dict.fromkeys(str(base.facts.get("quantization") or "unknown") for base in (a, b) if is_packed(base))
    )
    left = f"all {len(kept)} unquantised tensors (norms, embeddings) agree"
    if wrong := sorted(name for name, is_so in matches.items() if not is_so):
        return Match(
            level="same_shapes" if a.architecture == b.architecture else "different",
            evidence=(
                f"{left}, but the codes ({method}) of {count_names(wrong)} belong to other weights,"
                " probably of a fine-tune"
            ),
        )
    by = "both quantised, by" if is_packed(a) and is_packed(b) else "quantised by"
    packed = (
        f"the samples of all {len(matches)} packed ones match its codes"
        if matches
        else "its packed ones cannot be compared"
    )
    return Match(level="cast", evidence=f"{by} {method}: {left}, and {packed}")


def count_names(names: Sequence[str]) -> str:
    """The first name, and the number of further names."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _are_equal(mine: SampledWeight, other: SampledWeight) -> bool:
    """Whether the values are equal, bit for bit or after a cast."""
    return bool(find_cast(mine.tensor.dtype, mine.sketch.samples, other.tensor.dtype, other.sketch.samples))


def _may_be_equal(a: BaseRecord, b: BaseRecord, mine: SampledWeight, other: SampledWeight) -> bool | None:
    """Whether two weights, at least one packed, may have the same values; None if the samples cannot show
    it.
    """
    has_ranges = [_has_ranges(a, mine), _has_ranges(b, other)]
    match has_ranges:
        case [True, True]:
            return may_share_a_source(mine.sketch.samples, other.sketch.samples)
        case [True, False] if other.tensor.dtype in _FLOATS:
            return rounds_to(other.tensor.dtype, other.sketch.samples, mine.sketch.samples)
        case [False, True] if mine.tensor.dtype in _FLOATS:
            return rounds_to(mine.tensor.dtype, mine.sketch.samples, other.sketch.samples)
    return None


def _has_ranges(record: BaseRecord, weight: SampledWeight) -> bool:
    """Whether a weight's sketch has ranges of values, as only bitsandbytes' sketches do."""
    return weight.tensor.dtype in ("U8", "I8") and str(record.facts.get("quantization")).startswith(
        "bitsandbytes"
    )
