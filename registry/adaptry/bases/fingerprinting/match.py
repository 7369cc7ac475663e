"""The similarity of two bases, from their records alone: a level, and the evidence in words.

Most similar first: *exact* (every byte was compared by digest), *same_weights* (all samples are equal),
*cast* (one is a dtype cast or a quantised copy of the other), *same_shapes*, *different*. A level requires
equal bits; close values are only mentioned in the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptry.adapters.base_record import BaseRecord, Match
from adaptry.adapters.tensor_names import normalised
from adaptry.bases.fingerprinting.architecture import identity_facts
from adaptry.bases.fingerprinting.dtype_cast import find_cast, is_close
from adaptry.bases.fingerprinting.quantised_copies import (
    SampledWeight,
    count_names,
    is_packed,
    match_quantised,
)
from adaptry.core.display import format_count


def match_bases(a: BaseRecord, b: BaseRecord) -> Match:
    """The similarity of `a` and `b`."""
    if a.id == b.id:
        return _same_id(a, b)
    ours, theirs = _weights(a), _weights(b)
    if (is_packed(a) or is_packed(b)) and (found := match_quantised(a, b, ours, theirs)):
        return found
    if a.architecture != b.architecture:
        return Match(level="different", evidence=_difference(a, b, ours, theirs))
    return _same_architecture(a, b, ours, theirs)


def _same_id(a: BaseRecord, b: BaseRecord) -> Match:
    if a.roots and b.roots:
        if a.roots.exact == b.roots.exact:
            return Match(level="exact", evidence="every weight's bytes have the same digest")
        return Match(
            level="same_shapes",
            evidence=(
                "all samples agree, but the digests over all weights differ: one was changed in a few places"
            ),
        )
    if a.file_hashes and a.file_hashes == b.file_hashes:
        return Match(level="exact", evidence="every file has the same digest")
    return Match(
        level="same_weights",
        evidence=f"config, shapes and dtypes agree, and so do the samples of all {len(a.tensors)} tensors",
    )


def _same_architecture(
    a: BaseRecord, b: BaseRecord, ours: Mapping[str, SampledWeight], theirs: Mapping[str, SampledWeight]
) -> Match:
    casts: dict[str, str] = {}
    unlike: list[str] = []
    for name, weight in ours.items():
        other = theirs[name]
        cast = find_cast(weight.tensor.dtype, weight.sketch.samples, other.tensor.dtype, other.sketch.samples)
        if cast is None:
            unlike.append(name)
        else:
            casts[name] = cast
    facts = _fact_differences(a, b)
    if unlike:
        if all(_are_close(ours[name], theirs[name]) for name in unlike):
            return Match(
                level="same_shapes",
                evidence=(
                    f"{count_names(unlike)} close but not equal: probably casts of a third copy,"
                    " or a light fine-tune"
                ),
            )
        return Match(level="same_shapes", evidence=f"the weights differ in {count_names(unlike)}")
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


def _difference(
    a: BaseRecord, b: BaseRecord, ours: Mapping[str, SampledWeight], theirs: Mapping[str, SampledWeight]
) -> str:
    facts = _fact_differences(a, b)
    if facts:
        return facts
    only_a, only_b = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if only_a or only_b:
        example = (only_a or only_b)[0]
        return (
            f"{format_count(len(only_a), 'tensor')} only in one and {len(only_b)} only in the other (such as"
            f" {example})"
        )
    reshaped = [name for name in sorted(ours) if ours[name].tensor.shape != theirs[name].tensor.shape]
    return f"{count_names(reshaped)} with a different shape"


def _fact_differences(a: BaseRecord, b: BaseRecord) -> str:
    ours, theirs = identity_facts(a.facts), identity_facts(b.facts)
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    return ", ".join(f"{key} {_shown(ours.get(key))} against {_shown(theirs.get(key))}" for key in keys[:4])


def _shown(value: Any) -> str:
    """(`Any`: a fact is JSON.)"""
    return "none" if value is None else str(value)[:80]


def _weights(record: BaseRecord) -> dict[str, SampledWeight]:
    plain = normalised(record.tensors)
    return {
        plain[name]: SampledWeight(tensor, record.sketches[name])
        for name, tensor in record.tensors.items()
        if name in record.sketches
    }


def _are_close(a: SampledWeight, b: SampledWeight) -> bool:
    return is_close(a.tensor.dtype, a.sketch.samples, b.tensor.dtype, b.sketch.samples)
