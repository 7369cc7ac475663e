"""`adaptry check`: whether an adapter can work, alone, against a base, or for an engine."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.core.refs import folder_argument
from adaptry.core.report import CheckReport, Severity
from adaptry.operations.adapter_check import CheckRequest, CheckResult, check_adapter
from adaptry_cli.arguments import BASE, RUNTIME, SOURCE, Source
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import format_count, json_option, print_err, print_json, progress
from adaptry_cli.tables import print_wrapped
from adaptry_cli.verdicts import verdict_text
from adaptry_cli.version_text import findings_text
from adaptry_cli.warnings import warn

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime


_NOUNS: Mapping[Severity, str] = {"blocks": "blocking finding", "warns": "warning", "notes": "note"}


@command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
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
    source: Source,
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
    """
    request = CheckRequest(base, other_base, weights, runtimes)
    with progress() as bars:
        found = check_adapter(connected, source, request, warn=warn, progress=bars)
    report = found.report
    if as_json:
        verdicts = [one.model_dump(mode="json") for one in found.verdicts]
        verdict_json = {"verdicts": verdicts} if runtimes else {}
        print_json({"blocked": report.is_blocked, **report.model_dump(mode="json"), **verdict_json})
    else:
        ref = shlex.quote(folder_argument(source)) if isinstance(source, Path) else found.label
        print_wrapped(findings_text(report.findings, ref).split("\n"))
        print_err(f"checked {ref} {_where(found)}: {_conclusion(report)}")
        for one in found.verdicts:
            print_wrapped(verdict_text(one, ref))
    ctx.exit(NO if found.is_blocked or not found.is_served_as_trained else 0)


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
