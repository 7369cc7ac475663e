"""`adaptry check`: whether an adapter can work, alone, against a base, or for an engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import AdaptryError
from adaptry.core.report import CheckReport, Severity
from adaptry.operations.adapter_check import CheckRequest, CheckResult, check_adapter
from adaptry_cli.arguments import BASE, RUNTIME, SOURCE, Source
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.multiple_adapters import error_json, for_each, source_text
from adaptry_cli.output import escape_controls, format_count, json_option, print_err, print_json, progress
from adaptry_cli.tables import print_wrapped
from adaptry_cli.verdicts import verdict_text
from adaptry_cli.version_text import findings_text
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime


_NOUNS: Mapping[Severity, str] = {"blocks": "blocking finding", "warns": "warning", "notes": "note"}


@command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--base", metavar="NAME|DIR|ID", type=BASE, help="The base to check against. Default: the adapter's own."
)
@click.option(
    "--other-base", is_flag=True, help="Allow a base other than the one that the adapter was trained on."
)
@click.option(
    "--weights/--no-weights",
    default=None,
    help="Read the weights, for NaN, infinity and modules that change nothing. Default: those of a folder are"
    " read; for a version, the findings of its push are used.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=RUNTIME,
    help="Also check for this engine, such as vllm@0.33,max_lora_rank=64; may be repeated.",
)
@lazy_registry_option
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    connected: RegistryOpener,
    sources: tuple[Source, ...],
    base: str | None,
    other_base: bool,
    weights: bool | None,
    runtimes: tuple[Runtime, ...],
    as_json: bool,
) -> None:
    """Check an adapter, alone, against a base, or for an engine.

    Without --base, the adapter is checked against its version's base, or the registered base that its config
    names. If --base is a different model, that is a finding. For a version, only headers and
    configs are read, because its weights were inspected when it was pushed.

    The exit code is 1 if the adapter cannot work as it is, or if an engine refuses it or does not serve it as
    trained. Every finding has a reason and a remedy.

    With several adapters, prints one line for each, with the codes of its findings; check a single adapter to
    see reasons and remedies. The exit code is 1 if one of them cannot work or cannot be read.
    """
    request = CheckRequest(base, other_base, weights, runtimes)

    def checked(source: Source) -> CheckResult:
        with progress() as bars:
            return check_adapter(connected, source, request, warn=warn, progress=bars)

    if len(sources) > 1:
        ctx.exit(NO if _check_several(sources, checked, as_json) else 0)
    found = checked(sources[0])
    if as_json:
        print_json(_json_of(found))
    else:
        _print_findings(sources[0], found)
    ctx.exit(NO if _is_negative(found) else 0)


def _check_several(sources: Sequence[Source], checked: Callable[[Source], CheckResult], as_json: bool) -> int:
    """Prints a line for each adapter as soon as it is checked; returns how many are not usable."""
    found, negative = [], 0
    for source, result in for_each(sources, checked):
        if isinstance(result, AdaptryError):
            negative += 1
            found.append(error_json(source, result))
            line = result.message
        else:
            negative += _is_negative(result)
            found.append({"adapter": source_text(source), **_json_of(result)})
            line = _summary(result)
        if not as_json:
            click.echo(escape_controls(f"{source_text(source)}: {line}"))
    if as_json:
        print_json(found)
    else:
        verdict = f"{negative:,} cannot be used as they are" if negative else "all can be used"
        print_err(f"checked {format_count(len(sources), 'adapter')}; {verdict}")
    return negative


def _summary(found: CheckResult) -> str:
    """`1 blocking finding; it cannot work as it is [shape_mismatch], against org/model`."""
    codes = ", ".join(dict.fromkeys(one.code for one in found.findings))
    outcomes = "".join(f"; {one.runtime}: {one.outcome.replace('_', ' ')}" for one in found.verdicts)
    return f"{_conclusion(found.report)}{f' [{codes}]' if codes else ''}, {_where(found)}{outcomes}"


def _print_findings(source: Source, found: CheckResult) -> None:
    ref = source_text(source) if isinstance(source, Path) else found.label
    print_wrapped(findings_text(found.findings, ref).split("\n"))
    print_err(f"checked {ref} {_where(found)}: {_conclusion(found.report)}")
    for one in found.verdicts:
        print_wrapped(verdict_text(one, ref))


def _json_of(found: CheckResult) -> dict[str, Any]:
    """The result as JSON. (`Any`: JSON.)"""
    verdicts = [one.model_dump(mode="json") for one in found.verdicts]
    verdict_json = {"verdicts": verdicts} if verdicts else {}
    return {"blocked": found.is_blocked, **found.report.model_dump(mode="json"), **verdict_json}


def _is_negative(found: CheckResult) -> bool:
    return found.is_blocked or not found.is_served_as_trained


def _conclusion(report: CheckReport) -> str:
    """`1 blocking finding, 2 warnings; it cannot work as it is`."""
    counts = Counter(finding.severity for finding in report.findings)
    listed = [format_count(counts[severity], noun) for severity, noun in _NOUNS.items() if counts[severity]]
    if report.is_blocked:
        conclusion = "it cannot work as it is"
    elif any(finding.code == "untrained" for finding in report.findings):
        conclusion = "it changes nothing"
    else:
        conclusion = "it can be used"
    return f"{', '.join(listed) or 'no findings'}; {conclusion}"


def _where(found: CheckResult) -> str:
    if found.base is None:
        return "without a base"
    return f"against {found.base}" + (", the base that its config names" if found.is_configured_base else "")
