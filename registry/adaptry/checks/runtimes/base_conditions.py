"""Conditions on an adapter's modules in its base: layers, names, vocabulary. Most need the base."""

from __future__ import annotations

import re

from adaptry.checks.finding_text import format_count, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.core import strictjson
from adaptry.core.errors import Invalid

_ADDED = "added_tokens.json"
_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=2, nodes=10_000)
_LAYER = re.compile(r"(?P<before>.*?\.|)(?P<number>\d+)\.(?P<after>.+)")


def uneven_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A module that has an update in some layers of the model, but not in others."""
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


def vocabulary_beyond(maximum: int) -> Condition:
    """An update of an output head whose vocabulary is larger than the engine's kernels support."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        heads = [m for m in subject.spec.modules if last_name(m.path) == "lm_head" and m.fan_out > maximum]
        if not heads:
            return None
        return ConditionMatch(
            f"lm_head has {heads[0].fan_out:,} rows, but at most {maximum:,} are supported", (heads[0].path,)
        )

    return found


def other_vocabulary(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """An update of an embedding whose number of rows differs from the base's. Needs the base."""
    rows = subject.base.facts.get("vocab_size") if subject.base else None
    wrong = [m for m in subject.spec.modules if m.kind == "embedding" and rows not in (None, m.fan_in)]
    if not wrong:
        return None
    return ConditionMatch(
        f"{wrong[0].path} has {wrong[0].fan_in:,} rows, but the base {rows:,}", (wrong[0].path,)
    )


def added_tokens(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tokens of `added_tokens.json` that are not in the base's vocabulary; all its tokens, if the base is
    unknown.

    Tools copy this file from the base's tokenizer.
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
    beyond = f"that a base of {first:,} rows does not have" if first else "which its unknown base may lack"
    return ConditionMatch(f"{_ADDED} has {format_count(len(added), 'token')} {beyond}")


def stored_transposed(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`fan_in_fan_out` for a base that stores weights as [in, out] (GPT-2), or for an unknown base."""
    if "fan_in_fan_out" not in subject.spec.traits:
        return None
    placed = subject.module_map.placed if subject.module_map else ()
    if placed and not any(target.orientation == "conv1d" for target in placed):
        return None
    return ConditionMatch("fan_in_fan_out is set: the base stores its weights transposed (GPT-2)")


def base_known(condition: Condition) -> Condition:
    """`condition`, tested only if the base's record is known."""
    return lambda subject, runtime: condition(subject, runtime) if subject.base else None


def base_unknown(condition: Condition) -> Condition:
    """`condition`, tested only if the base's record is unknown."""
    return lambda subject, runtime: None if subject.base else condition(subject, runtime)
