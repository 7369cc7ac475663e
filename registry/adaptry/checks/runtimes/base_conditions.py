"""Conditions on where an adapter lies in its base: layers, names, vocabulary. Most are silent without one."""

from __future__ import annotations

import re

from adaptry.checks.formatting import format_count, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.core import strictjson
from adaptry.core.errors import Invalid

_ADDED = "added_tokens.json"
_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=2, nodes=10_000)
_LAYER = re.compile(r"(?P<before>.*?\.|)(?P<number>\d+)\.(?P<after>.+)")


def uneven_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A module that some layers of the model have an update for, and others not."""
    layers: dict[str, set[int]] = {}
    for module in subject.spec.modules:
        if match := _LAYER.fullmatch(module.path):
            layers.setdefault(f"{match['before']}N.{match['after']}", set()).add(int(match["number"]))
    known = subject.base.facts.get("layers") if subject.base else None
    count = known if isinstance(known, int) else max((max(seen) + 1 for seen in layers.values()), default=0)
    uneven = [name for name, seen in layers.items() if len(seen) < count]
    if not uneven:
        return None
    return ConditionMatch(
        f"{shorten_names(uneven)} is not changed in all of {format_count(count, 'layer')}", tuple(uneven)
    )


def vocabulary_beyond(most: int) -> Condition:
    """An update of the output head of a vocabulary larger than the engine's kernels take."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        heads = [m for m in subject.spec.modules if last_name(m.path) == "lm_head" and m.fan_out > most]
        if not heads:
            return None
        return ConditionMatch(
            f"lm_head has {heads[0].fan_out:,} rows, and {most:,} is the most", (heads[0].path,)
        )

    return found


def other_vocabulary(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """An update of an embedding with other than the base's number of rows. Only where the base is known."""
    rows = subject.base.facts.get("vocab_size") if subject.base else None
    wrong = [m for m in subject.spec.modules if m.kind == "embedding" and rows not in (None, m.fan_in)]
    if not wrong:
        return None
    return ConditionMatch(
        f"{wrong[0].path} has {wrong[0].fan_in:,} rows, and the base {rows:,}", (wrong[0].path,)
    )


def added_tokens(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tokens of `added_tokens.json` that the base's vocabulary does not have; any, if the base is unknown.

    Tools copy that file from the base's own tokenizer.
    """
    size = subject.adapter.content.sizes.get(_ADDED, 0)
    if not 0 < size <= _LIMITS.size:
        return None
    try:
        tokens = strictjson.loads(subject.adapter.content.read_all(_ADDED, _LIMITS.size), _LIMITS, _ADDED)
    except Invalid:
        return None
    rows = subject.base.facts.get("vocab_size") if subject.base else None
    first = rows if isinstance(rows, int) else 0
    added = (
        [name for name, row in tokens.items() if type(row) is int and row >= first]
        if isinstance(tokens, dict)
        else []
    )
    if not added:
        return None
    beyond = (
        f"that a base of {first:,} rows does not have"
        if first
        else "and whether its base has them is not known"
    )
    return ConditionMatch(f"{_ADDED} has {format_count(len(added), 'token')} {beyond}")


def base_known(condition: Condition) -> Condition:
    """The condition, where the base's record is there."""
    return lambda subject, runtime: condition(subject, runtime) if subject.base else None


def base_unknown(condition: Condition) -> Condition:
    """The condition, where there is none."""
    return lambda subject, runtime: None if subject.base else condition(subject, runtime)
