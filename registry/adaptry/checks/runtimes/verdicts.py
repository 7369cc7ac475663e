"""The verdict of a runtime on an adapter: applies the engine's rules one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes.engine_view import engine_view, with_valid_rank
from adaptry.checks.runtimes.rule import (
    CheckSubject,
    Effect,
    RuntimeOutcome,
    RuntimeRule,
    RuntimeRules,
    RuntimeVerdict,
)
from adaptry.checks.runtimes.runtime import Runtime, format_version
from adaptry.checks.runtimes.table import ENGINES
from adaptry.core.report import Finding, Severity

_SHOWN = 20
_SEVERITY: dict[Effect, Severity] = {"refuses": "blocks", "changes": "warns", "needs": "notes"}
_ORDER = ("blocks", "warns", "notes")


def check_runtime(adapter: Adapter, runtime: Runtime, base: BaseRecord | None = None) -> RuntimeVerdict:
    """How `runtime` treats `adapter`. With its base's record, names and vocabulary are checked too.

    Raises `InvalidConfig` only if the config contradicts itself so that no spec can be derived.
    """
    engine = ENGINES[runtime.engine]
    adapter = adapter if engine.reads_rank else with_valid_rank(adapter)
    read = engine.reads_for(base) if engine.reads_for and base else engine.reads
    view = engine_view(adapter, read, reads_method=engine.reads_method)
    subject = CheckSubject(view.adapter, base, adapter, view.renamed, view.unread)
    findings = list(_found(engine.preconditions, subject, runtime, engine))
    if not findings:
        findings = list(_found(engine.rules, subject, runtime, engine))
    outcome = _outcome(findings)
    findings.extend(_unread(engine, runtime))
    findings.sort(key=lambda found: _ORDER.index(found.severity))
    return RuntimeVerdict(
        runtime=str(runtime), outcome=outcome, rules=engine.source_version, findings=tuple(findings)
    )


def check_all_runtimes(adapter: Adapter, base: BaseRecord | None = None) -> tuple[RuntimeVerdict, ...]:
    """The verdict of every engine on the adapter, in the version of the rules and with default options."""
    return tuple(check_runtime(adapter, Runtime(name), base) for name in ENGINES)


def _found(
    rules: Iterable[RuntimeRule], subject: CheckSubject, runtime: Runtime, engine: RuntimeRules
) -> Iterator[Finding]:
    version = runtime.version or engine.latest
    for rule in rules:
        if rule.holds_in(version) and (found := rule.when(subject, runtime)):
            yield Finding(
                code=rule.code,
                severity=_SEVERITY[rule.effect],
                reason=f"{engine.title} {_VERBS[rule.effect]}: {found.reason} ({rule.source})",
                remedy=rule.repair,
                modules=found.modules[:_SHOWN],
            )


_VERBS: dict[Effect, str] = {
    "refuses": "refuses it",
    "changes": "serves something other than what was trained",
    "needs": "needs attention",
}


def _outcome(findings: Iterable[Finding]) -> RuntimeOutcome:
    severities = {finding.severity for finding in findings}
    if "blocks" in severities:
        return "refused"
    return "not_as_trained" if "warns" in severities else "as_trained"


def _unread(engine: RuntimeRules, runtime: Runtime) -> Iterator[Finding]:
    """A finding if the rules are for a different version than the given one."""
    if (reason := other_version(engine, runtime)) is not None:
        yield Finding(
            code="rules_of_another_version",
            severity="notes",
            reason=reason,
            remedy="compare an answer with PEFT's before serving it",
        )


def other_version(engine: RuntimeRules, runtime: Runtime) -> str | None:
    """A sentence if the engine's rules are for a different version than that of `runtime`."""
    version, read = runtime.version, engine.latest
    if not version or (read and version[: len(read)] == read[: len(version)]):
        return None
    return (
        f"the rules are for {engine.title} {engine.source_version}, but {format_version(version)} was given"
    )
