"""Checks: problems of an adapter, alone and on its base, found before anyone loads it.

They are pure functions of headers, config and the base's record. `check` reads no weights
(`weights.check_weights` does). It does not raise for problems: it returns findings, with remedies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from adaptry.adapters.formats import PEFT
from adaptry.checks.codes import build_finding
from adaptry.core.errors import InvalidRef
from adaptry.core.refs import parse_base_name
from adaptry.core.report import CheckReport, Finding

if TYPE_CHECKING:
    from adaptry.adapters.adapter import Adapter
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.checks.binding import BoundAdapter

__all__ = ["check", "sort_findings", "unknown_base", "without_base"]

_TOLD_BY_BASE = frozenset(["base_weight_replaced", "weights_not_loaded"])
_ORDER = ("blocks", "warns", "notes")
_BIND = "record the base that it was trained on: adaptry base bind REF BASE"
_REGISTER = (
    "register its base from the folder: adaptry base add FOLDER --name NAME; this also checks the adapter"
    " again"
)


def check(
    adapter: Adapter,
    base: BaseRecord | None,
    base_name: str | None = None,
    *,
    other_names: Collection[str] = (),
    bound: BoundAdapter | None = None,
) -> CheckReport:
    """All findings about `adapter`, most serious first; with `base`, also whether it fits that base.

    `base_name` is the base's name, if known; `other_names` are its other names and those of bases with the
    same weights. `bound` is the result of binding the adapter to `base`, if the caller has it. Raises
    `InvalidConfig` only if the config contradicts itself so that no spec can be derived.
    """
    if base is not None:
        from adaptry.checks.binding import as_peft_reads, bind  # not needed without a known base

        adapter = bound.adapter if bound else as_peft_reads(adapter, base)
        if bound is None and adapter.format.names_modules:
            bound = bind(adapter, base)
    findings = [*adapter.derived(_findings_alone)] if base is None else _check_alone(adapter, base, bound)
    if base is None:
        findings.append(unknown_base(base_name or adapter.config.base_name))
    else:
        from adaptry.checks.base.bound import check_bound
        from adaptry.checks.base.identity import check_name
        from adaptry.checks.base.pipelines import check_pipeline_fit
        from adaptry.checks.base.tokenizer import check_tokenizer
        from adaptry.checks.other_formats import as_mlx_renaming

        findings.extend(check_name(adapter.config.base_name, base_name, other_names))
        if bound is not None and adapter.format.names_modules:
            found = [as_mlx_renaming(each) for each in check_bound(bound)]
        else:
            found = list(check_pipeline_fit(adapter, base))
        findings = [*_without_guesses(findings, found), *found, *check_tokenizer(adapter, base)]
    return CheckReport(findings=sort_findings(findings), base=base_name or (str(base.id) if base else None))


def _findings_alone(adapter: Adapter) -> tuple[Finding, ...]:
    """The findings about an adapter whose base is unknown."""
    return tuple(_check_alone(adapter, None, None))


def _check_alone(adapter: Adapter, base: BaseRecord | None, bound: BoundAdapter | None) -> list[Finding]:
    if adapter.format is not PEFT:
        from adaptry.checks.other_formats import check_other_format

        return list(check_other_format(adapter))
    from adaptry.checks.intrinsic import check_intrinsic

    findings = list(check_intrinsic(adapter, bound.as_parameters if bound else frozenset()))
    if adapter.spec.modules:
        return findings
    from adaptry.checks.base.prompts import check_prompt

    return [*findings, *check_prompt(adapter, base)]


def _without_guesses(alone: Iterable[Finding], on_base: Iterable[Finding]) -> list[Finding]:
    """Findings without the base, except for unclaimed tensors, which can be judged better with the base."""
    is_told = not _TOLD_BY_BASE.isdisjoint(found.code for found in on_base)
    return [found for found in alone if not (is_told and found.code == "keys_unknown")]


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, most serious first, otherwise in their given order."""
    return tuple(sorted(findings, key=lambda found: _ORDER.index(found.severity)))


def without_base(report: CheckReport, base_name: str | None, written: str | None) -> CheckReport:
    """The report that `check` would give for the same adapter if its base were unknown.

    `base_name` is the name with which the adapter was declared, `written` the one in its config.
    """
    from adaptry.checks.base_codes import AGAINST_BASE

    alone = [found for found in report.findings if found.code not in AGAINST_BASE]
    return CheckReport(findings=sort_findings([*alone, unknown_base(base_name or written)]), base=base_name)


@lru_cache(maxsize=64)
def unknown_base(name: str | None, folder: str | None = None) -> Finding:
    """The finding about an adapter of the base `name`, which is not registered.

    `folder`: the adapter's folder as written in a command, if it is not stored yet. A push of it can name the
    base; a stored version is bound to one.
    """
    push = f"adaptry push {folder} NAME --base BASE"
    other_base = f"name its base in the push: {push}" if folder else _BIND
    if name is None:
        finding = build_finding("base_unknown", "the adapter names no base and none was given")
        return finding.model_copy(update={"remedy": other_base})
    finding = build_finding(
        "base_unknown", f"the base {name[:120]!a} is unknown, so modules and shapes were not checked"
    )
    try:
        parse_base_name(name)
    except InvalidRef:
        remedy = _REGISTER if name.startswith("sha256:") else other_base
    else:
        remedy = f"register it: adaptry base add FOLDER --name {name}; "
        remedy += (
            f"or, if it is registered under another name: {push}"
            if folder
            else "this also checks the adapter again; or, if it is registered and you can see it now:"
            f" adaptry base bind REF {name}"
        )
    return finding.model_copy(update={"remedy": remedy})
