"""Conditions from findings of `checks.intrinsic`, for engines that read PEFT's config."""

from __future__ import annotations

from adaptry.checks.intrinsic import check_intrinsic
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime


def undeclared(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tensors of a module that the config does not declare; other rules find unclaimed tensors."""
    return None if subject.spec.unclaimed else blocked_by("keys_dropped")(subject, runtime)


def blocked_by(*codes: str) -> Condition:
    """Blocking findings with these codes."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        findings = [
            one for one in check_intrinsic(subject.adapter) if one.code in codes and one.severity == "blocks"
        ]
        if not findings:
            return None
        return ConditionMatch("; ".join(one.reason for one in findings), findings[0].modules)

    return found
