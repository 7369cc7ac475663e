"""Engines' verdicts as people read them: one in detail, or all in three lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from adaptry_cli.version_text import findings_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import RuntimeVerdict


def verdict_text(verdict: RuntimeVerdict, ref: str) -> Iterator[str]:
    """`vllm@0.33: loads and is served as trained`, with its findings below. `ref` is the adapter's name in
    their commands.
    """
    from adaptry.checks.runtimes.rule import OUTCOME_TITLES

    yield f"{verdict.runtime}: {OUTCOME_TITLES[verdict.outcome]}"
    if verdict.findings:
        yield from (f"  {line}" for line in findings_text(verdict.findings, ref).split("\n"))


def facts_of_verdicts(verdicts: Iterable[RuntimeVerdict]) -> Iterator[tuple[str, str]]:
    """`served  as trained: vllm, tgi` and, below, the engines that refuse or alter it, with the codes."""
    from adaptry.checks.runtimes.rule import OUTCOME_TITLES

    found = list(verdicts)
    lines = []
    for outcome in OUTCOME_TITLES:
        names = [_with_codes(one) for one in found if one.outcome == outcome]
        if names:
            lines.append(f"{outcome.replace('_', ' ')}: {', '.join(names)}")
    yield "served", "\n".join(lines)


def json_of_verdicts(verdicts: Iterable[RuntimeVerdict]) -> Mapping[str, object]:
    """The verdicts as JSON for programs, by engine."""
    return {
        one.runtime: {"outcome": one.outcome, "findings": [found.code for found in one.findings]}
        for one in verdicts
    }


def _with_codes(verdict: RuntimeVerdict) -> str:
    codes = dict.fromkeys(found.code for found in verdict.findings if found.severity != "notes")
    return f"{verdict.runtime} ({', '.join(codes)})" if codes else verdict.runtime
