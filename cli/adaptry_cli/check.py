"""`adaptry check`: whether an adapter can work, alone, against a base, or for an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.adapters.adapter import open_dir
from adaptry.core.report import CheckReport
from adaptry.operations.transfer import open_revision
from adaptry_cli.arguments import RUNTIME, SOURCE, Source
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.inputs import (
    BaseToCheck,
    OpenedAdapter,
    configured_base,
    find_base,
    open_input,
    version_base,
)
from adaptry_cli.out import json_option, print_err, print_json, print_lines, progress
from adaptry_cli.verdicts import verdict_text
from adaptry_cli.version_text import findings_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime


@click.command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
@click.option("--base", metavar="NAME|DIR|ID", help="The base to check against; else its own.")
@click.option(
    "--other-base", is_flag=True, help="Let it be another base than the one that the adapter is for."
)
@click.option(
    "--weights", is_flag=True, help="Read the weights too: NaN, infinity, updates that are all zero."
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=RUNTIME,
    help="An engine to serve it with, as in vllm@0.33,max_lora_rank=64; may be repeated.",
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
    weights: bool,
    runtimes: tuple[Runtime, ...],
    as_json: bool,
) -> None:
    """Check an adapter, alone, against a base, or for an engine.

    Without --base, it is checked against its version's base, or the registered one that its config names;
    with it, another model than that is a finding. Reads headers and configs, so it takes no time.

    Exit code 1 means that it cannot work as it is, or that an engine refuses it or serves something else than
    was trained; every finding says why and what to do.
    """
    from adaptry.checks.runtimes import check_runtime

    opened = open_input(connected, source)
    own = _own_base(connected, opened)
    against = own if base is None else find_base(connected, base)
    report = _report(connected, opened, against, own, other_base)
    if weights:
        report = _with_weights(connected, source, report)
    verdicts = [check_runtime(opened.adapter, runtime, against.record) for runtime in runtimes]
    if as_json:
        verdict_json = {"verdicts": [one.model_dump(mode="json") for one in verdicts]} if runtimes else {}
        print_json({"blocked": report.is_blocked, **report.model_dump(mode="json"), **verdict_json})
    else:
        print_lines(findings_text(report.findings).split("\n"))
        where = _where(opened, against, is_given=base is not None)
        print_err(
            f"{opened.label} checked {where}: {'cannot work as it is' if report.is_blocked else 'fine'}"
        )
        for one in verdicts:
            print_lines(verdict_text(one))
    is_served = all(one.outcome == "as_trained" for one in verdicts)
    ctx.exit(NO if report.is_blocked or not is_served else 0)


def _own_base(connected: RegistryOpener, opened: OpenedAdapter) -> BaseToCheck:
    """The base that the adapter is for: its version's, else the registered one that its config names."""
    if opened.version:
        return version_base(connected, opened.version)
    return configured_base(connected, opened.adapter) or BaseToCheck("no base", None)


def _where(opened: OpenedAdapter, base: BaseToCheck, *, is_given: bool) -> str:
    if base.record is None:
        return "on its own"
    source = "" if is_given or opened.version else ", the base its config names"
    return f"against {base.label}{source}"


def _report(
    connected: RegistryOpener,
    opened: OpenedAdapter,
    against: BaseToCheck,
    own: BaseToCheck,
    other_base: bool,
) -> CheckReport:
    """The findings against a base; one more if it is another model than the adapter's own."""
    from adaptry.checks import check as check_adapter
    from adaptry.checks import check_same_base, sort_findings

    names = _known_names(connected, opened, against)
    report = check_adapter(opened.adapter, against.record, against.name, other_names=names)
    if own is against or own.record is None or against.record is None:
        return report
    more = list(check_same_base(own.record, against.record, own.label, against.label, is_allowed=other_base))
    kept = [one for one in report.findings if not (more and one.code == "base_name_differs")]
    return report.model_copy(update={"findings": sort_findings([*kept, *more])})


def _known_names(connected: RegistryOpener, opened: OpenedAdapter, base: BaseToCheck) -> tuple[str, ...]:
    """The names of a base, and the one in the config if that is a base of the same weights."""
    from adaptry.bases.fingerprinting.match import match_bases

    written = opened.adapter.config.base_name
    if base.record is None or written is None or written in base.names:
        return base.names
    named = configured_base(connected, opened.adapter)
    is_same = named and named.record and match_bases(named.record, base.record).is_same_model
    return (*base.names, written) if is_same else base.names


def _with_weights(connected: RegistryOpener, source: Source, report: CheckReport) -> CheckReport:
    """The report with what only the weights can tell; a version's are fetched into the cache once."""
    from adaptry.checks import check_weights, sort_findings

    if isinstance(source, Path):
        adapter = open_dir(source)
    else:
        with progress() as bars:
            adapter = open_revision(connected(), source, progress=bars)
    findings = sort_findings([*report.findings, *check_weights(adapter)])
    return report.model_copy(update={"findings": findings})
