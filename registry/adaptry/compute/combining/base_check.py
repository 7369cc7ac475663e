"""Whether adapters have the same base: fingerprints decide, names are hints, and unknown bases are
reported.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.bases.fingerprinting.match import match_bases
from adaptry.checks.binding import bind, require_complete
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed

_SAME_BASE = ("exact", "same_weights", "cast")


def check_one_base(parents: Sequence[ParentAdapter], other_base: bool) -> list[str]:
    """Notes about the parents' bases.

    Raises `CheckFailed` if two parents are known to have different bases, unless `other_base` allows this,
    and if PEFT would not load every part of a parent onto its base.
    """
    notes: list[str] = []
    for parent in parents:
        if parent.base is not None:
            require_complete(parent.label, bind(parent.adapter, parent.base))
    known = [parent for parent in parents if parent.base is not None]
    for parent in known[1:]:
        notes += _compared(known[0], parent, other_base)
    unknown = [parent for parent in parents if parent.base is None]
    if len(parents) > 1 and unknown:
        notes += _named(parents, unknown, other_base)
    return notes


def _compared(first: ParentAdapter, other: ParentAdapter, other_base: bool) -> list[str]:
    assert first.base is not None and other.base is not None
    if first.base.id == other.base.id:
        return []
    found = match_bases(first.base, other.base)
    between = (
        f"{other.label} is for the base {other.base.id.brief}, but {first.label} for {first.base.id.brief}"
    )
    if found.level in _SAME_BASE:
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise CheckFailed(
            f"{other.label} is for the base {other.base_label}, but {first.label} for {first.base_label}:"
            f" {found.evidence}. The sum of updates for different bases is not meaningful;"
            " pass --other-base if you want it anyway"
        )
    return [f"{between}: {found.evidence}; another base was allowed"]


def _named(parents: Sequence[ParentAdapter], unknown: Sequence[ParentAdapter], other_base: bool) -> list[str]:
    names = {parent.adapter.config.base_name for parent in parents} - {None}
    labels = ", ".join(dict.fromkeys(parent.label for parent in unknown))
    if len(names) > 1:
        between = f"the inputs name different bases ({', '.join(sorted(map(str, names)))})"
        if not other_base:
            raise CheckFailed(
                f"{between}, and no registry has compared them with that of {labels}; if they are one model,"
                " pass the base with --base, or pass --other-base if you want to combine them anyway"
            )
        return [f"{between}; different bases were allowed"]
    return [f"assumed, not checked: the inputs have the same base. No registry knows the base of {labels}"]


def check_sequence(parents: Sequence[ParentAdapter], weights: Sequence[float]) -> list[str]:
    """Notes about the assumptions of a stack of adapters that were trained one on top of another.

    The base of a later adapter is the first base with the earlier adapters merged in. Shapes do not show
    this, so it is stated as an assumption. Raises `CheckFailed` if the shapes rule it out.
    """
    notes = []
    for place, parent in enumerate(parents[1:], 1):
        before = " + ".join(earlier.label for earlier in parents[:place])
        notes.append(
            f"assumed: {parent.label} was trained on the base with {before} merged in, each with weight 1"
        )
        first = parents[0].base
        if (
            first is not None
            and parent.base is not None
            and match_bases(first, parent.base).level == "different"
        ):
            raise CheckFailed(
                f"the shapes of {parent.label}'s base differ from {parents[0].label}'s, so it was not"
                " trained on top of it"
            )
    if any(weight != 1 for weight in weights[:-1]):
        notes.append(
            "an input before the last has a weight other than 1, but the inputs after it were trained with"
            " weight 1"
        )
    return notes
