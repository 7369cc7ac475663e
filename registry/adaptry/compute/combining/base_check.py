"""Whether adapters are of one base: what is known by content decides, names are hints, silence is told."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.bases.fingerprinting.match import match_bases
from adaptry.checks.binding import bind, require_whole
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed

_SAME = ("exact", "same_weights", "cast")


def check_one_base(parents: Sequence[ParentAdapter], other_base: bool) -> list[str]:
    """What is to be told about the parents' bases.

    Raises `CheckFailed` where two are known to be of different bases, unless `other_base` allows it, and
    where PEFT would not load all of one onto its base.
    """
    notes: list[str] = []
    for parent in parents:
        if parent.base is not None:
            require_whole(parent.label, bind(parent.adapter, parent.base))
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
        f"{other.label} is for the base {other.base.id.brief}, and {first.label} for {first.base.id.brief}"
    )
    if found.level in _SAME:
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise CheckFailed(
            f"{between}: {found.evidence}. Updates of different bases do not add up to anything that was"
            " trained; say --other-base if that is what you want"
        )
    return [f"{between}: {found.evidence}, as --other-base allows"]


def _named(parents: Sequence[ParentAdapter], unknown: Sequence[ParentAdapter], other_base: bool) -> list[str]:
    names = {parent.adapter.config.base_name for parent in parents} - {None}
    labels = ", ".join(dict.fromkeys(parent.label for parent in unknown))
    if len(names) > 1:
        between = f"the inputs name different bases ({', '.join(sorted(map(str, names)))})"
        if not other_base:
            raise CheckFailed(
                f"{between}, and for {labels} nothing else tells; push them to a registry that knows their"
                " bases, or say --other-base if these names mean one model"
            )
        return [f"{between}, as --other-base allows"]
    return [
        "that the inputs are of one base is believed, not checked: no registry knows by content of which"
        f" {labels} {'is' if len(unknown) == 1 else 'are'}"
    ]


def check_sequence(parents: Sequence[ParentAdapter], weights: Sequence[float]) -> list[str]:
    """What a stack of adapters assumes that were trained one on top of the other.

    The base of a later one is the first's with the earlier ones merged in; nobody can see that from shapes,
    so it is said. Raises `CheckFailed` where the shapes rule it out.
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
                f"{parent.label} is for a base of other shapes than {parents[0].label}'s, so it was not"
                " trained on top of it"
            )
    if any(weight != 1 for weight in weights[:-1]):
        notes.append(
            "an input before the last has another weight than 1:"
            " what follows it was trained on something else"
        )
    return notes
