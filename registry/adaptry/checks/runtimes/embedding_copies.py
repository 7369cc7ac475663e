"""Conditions on the copies of whole embeddings that PEFT saves next to an update of them.

PEFT loads the copy; most engines ignore it and use the base's embedding. The copy's values show whether this
makes a difference (`copied_weights`); a verdict reads no other weights.
"""

from __future__ import annotations

from adaptry.checks.base.copied_weights import Likeness, compare_with_base
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.conditions import is_embedding_copy
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime


def copied(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Any copy, whatever its values."""
    targets = tuple(extra.target for extra in subject.spec.extras if is_embedding_copy(extra))
    if not targets:
        return None
    return ConditionMatch(f"it replaces {shorten_names(fold_layer_numbers(targets))}", targets)


def copied_as(likeness: Likeness) -> Condition:
    """Copies whose sampled values compare in this way with the base's. A copy that cannot be compared counts
    as equal: the base is unknown, or has another number of tokens, which other rules report.
    """

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        targets = tuple(name for name, seen in _compared(subject).items() if seen == likeness)
        if not targets:
            return None
        names = shorten_names(fold_layer_numbers(targets))
        return ConditionMatch(_SENTENCES[likeness].format(names), targets)

    return found


_SENTENCES: dict[Likeness, str] = {
    "equal": "it replaces {}",
    "rounded": "it replaces {} by a rounded copy",
    "different": "it replaces {} by values that differ from the base's",
}


def _compared(subject: CheckSubject) -> dict[str, Likeness]:
    """The target of each copy, and the result of comparing the copy with it."""
    found: dict[str, Likeness] = {
        extra.target: "equal" for extra in subject.spec.extras if is_embedding_copy(extra)
    }
    base, adapter = subject.base, subject.written or subject.adapter
    if not found or base is None or subject.module_map is None:
        return found
    for extra in subject.module_map.extras:
        if extra.extra.target in found:
            found[extra.extra.target] = compare_with_base(adapter, extra, base) or "equal"
    return found
