"""How alike two bases are, from their records alone: a level, and the evidence in words.

Strongest first: *exact* (every byte was compared by digest), *same_weights* (equal wherever we looked), *cast* (one
is a dtype cast or a quantised copy of the other), *same_shapes*, *different*. A level is claimed only on
equality of bits; what is merely close is said in the evidence and not claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adaptry.fingerprint import BaseRecord, Match, Sketch, TensorShape
from adaptry.fingerprinting.architecture import identity_facts
from adaptry.fingerprinting.casting import cast_between, is_close
from adaptry.naming import normalised

_ENOUGH = 3
_QUANTISED_DTYPES = frozenset(["I8", "U8", "I32", "F8_E4M3", "F8_E5M2"])


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight of a base under its normalised name."""

    tensor: TensorShape
    sketch: Sketch


def match(a: BaseRecord, b: BaseRecord) -> Match:
    """How alike `a` and `b` are."""
    if a.id == b.id:
        return _same_id(a, b)
    ours, theirs = _weights(a), _weights(b)
    if a.architecture != b.architecture:
        return _quantised(a, b, ours, theirs) or Match(
            level="different", evidence=_difference(a, b, ours, theirs)
        )
    return _same_architecture(a, b, ours, theirs)


def is_quantised(facts: Mapping[str, Any], dtypes: Iterable[str]) -> bool:
    """Whether a base of these config facts and dtypes holds packed or rounded weights. (`Any`: facts are JSON.)"""
    return bool(facts.get("quantization")) or not _QUANTISED_DTYPES.isdisjoint(dtypes)


def _same_id(a: BaseRecord, b: BaseRecord) -> Match:
    if a.roots and b.roots:
        if a.roots.exact == b.roots.exact:
            return Match(level="exact", evidence="every weight's bytes have the same digest")
        return Match(
            level="same_shapes",
            evidence="every sample agrees, and yet the digests over all weights differ: "
            "one was changed in a few places",
        )
    if a.file_hashes and a.file_hashes == b.file_hashes:
        return Match(level="exact", evidence="every file has the same digest")
    return Match(
        level="same_weights",
        evidence=f"config, shapes and dtypes agree, and so do the samples of all {len(a.tensors)} tensors",
    )


def _same_architecture(
    a: BaseRecord, b: BaseRecord, ours: Mapping[str, _Weight], theirs: Mapping[str, _Weight]
) -> Match:
    casts: dict[str, str] = {}
    unlike: list[str] = []
    for name, weight in ours.items():
        other = theirs[name]
        cast = cast_between(
            weight.tensor.dtype, weight.sketch.samples, other.tensor.dtype, other.sketch.samples
        )
        if cast is None:
            unlike.append(name)
        else:
            casts[name] = cast
    facts = _fact_differences(a, b)
    if unlike:
        if all(_are_close(ours[name], theirs[name]) for name in unlike):
            return Match(
                level="same_shapes",
                evidence=f"{_count(unlike)} close and not equal: probably casts of a third copy, or a light fine-tune",
            )
        return Match(level="same_shapes", evidence=f"the weights differ in {_count(unlike)}")
    if facts:
        return Match(
            level="same_shapes",
            evidence=f"the samples of all tensors agree, but the configs do not: {facts}",
        )
    if a.roots and b.roots and a.roots.canon and b.roots.canon and a.roots.canon == b.roots.canon:
        return Match(level="cast", evidence="as bfloat16, every weight has the same digest")
    kinds = sorted({cast for cast in casts.values() if cast != "equal"})
    return Match(
        level="cast",
        evidence=f"the samples of all {len(ours)} tensors agree exactly after {', '.join(kinds)}",
    )


def _quantised(
    a: BaseRecord, b: BaseRecord, ours: Mapping[str, _Weight], theirs: Mapping[str, _Weight]
) -> Match | None:
    """A quantised copy keeps its norms and embeddings: equal ones of these are what it is recognised by.

    Its own tensors (packed weights, scales) match nothing; so only what both have in one shape is asked.
    """
    if not any(_has_quantised(record) for record in (a, b)):
        return None
    kept = [
        name
        for name in ours.keys() & theirs.keys()
        if ours[name].tensor.shape == theirs[name].tensor.shape
        and not {ours[name].tensor.dtype, theirs[name].tensor.dtype} & _QUANTISED_DTYPES
    ]
    alike = [
        name
        for name in kept
        if cast_between(
            ours[name].tensor.dtype,
            ours[name].sketch.samples,
            theirs[name].tensor.dtype,
            theirs[name].sketch.samples,
        )
    ]
    has_matrix = any(len(ours[name].tensor.shape) > 1 for name in alike)
    if len(alike) < _ENOUGH or alike != kept or not has_matrix:
        return None
    method = a.facts.get("quantization") or b.facts.get("quantization") or "unknown"
    return Match(
        level="cast",
        evidence=f"a quantised copy ({method}): all {len(kept)} tensors left alone (norms, embeddings) agree",
    )


def _has_quantised(record: BaseRecord) -> bool:
    return is_quantised(record.facts, (tensor.dtype for tensor in record.tensors.values()))


def _difference(
    a: BaseRecord, b: BaseRecord, ours: Mapping[str, _Weight], theirs: Mapping[str, _Weight]
) -> str:
    facts = _fact_differences(a, b)
    if facts:
        return facts
    only_a, only_b = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if only_a or only_b:
        example = (only_a or only_b)[0]
        return (
            f"{len(only_a)} tensors are only in one and {len(only_b)} only in the other ({example}, for one)"
        )
    reshaped = [name for name in sorted(ours) if ours[name].tensor.shape != theirs[name].tensor.shape]
    return f"{_count(reshaped)} of another shape"


def _fact_differences(a: BaseRecord, b: BaseRecord) -> str:
    ours, theirs = identity_facts(a.facts), identity_facts(b.facts)
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    return ", ".join(f"{key} {_shown(ours.get(key))} against {_shown(theirs.get(key))}" for key in keys[:4])


def _shown(value: Any) -> str:
    """(`Any`: a fact is JSON.)"""
    return "none" if value is None else str(value)[:80]


def _count(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _weights(record: BaseRecord) -> dict[str, _Weight]:
    plain = normalised(record.tensors)
    return {
        plain[name]: _Weight(tensor, record.sketches[name])
        for name, tensor in record.tensors.items()
        if name in record.sketches
    }


def _are_close(a: _Weight, b: _Weight) -> bool:
    return is_close(a.tensor.dtype, a.sketch.samples, b.tensor.dtype, b.sketch.samples)
