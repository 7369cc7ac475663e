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
    find_base,
    open_input,
    version_base,
)
from adaptry_cli.out import json_option, print_err, print_json, print_lines, progress
from adaptry_cli.verdicts import verdict_text
from adaptry_cli.version_text import findings_text

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime


_ORDER = ("blocks", "warns", "notes")


@click.command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
@click.option("--base", metavar="NAME|DIR|ID", help="The base to check against; else a version's own.")
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
    weights: bool,
    runtimes: tuple[Runtime, ...],
    as_json: bool,
) -> None:
    """Check an adapter, alone, against a base, or for an engine.

    Reads headers and configs, so it takes no time. Exit code 1 means that it cannot work as it is, or that an
    engine refuses it or serves something else than was trained; every finding says why and what to do.
    """
    from adaptry.checks import check as check_adapter
    from adaptry.checks.runtimes import check_runtime

    opened = open_input(connected, source)
    against = _base(connected, opened, base)
    report = check_adapter(opened.adapter, against.record, against.name)
    if weights:
        report = _with_weights(connected, source, report)
    verdicts = [check_runtime(opened.adapter, runtime, against.record) for runtime in runtimes]
    if as_json:
        verdict_json = {"verdicts": [one.model_dump(mode="json") for one in verdicts]} if runtimes else {}
        print_json({"blocked": report.is_blocked, **report.model_dump(mode="json"), **verdict_json})
    else:
        print_lines(findings_text(report.findings).split("\n"))
        where = f"against {against.label}" if against.record else "on its own"
        print_err(
            f"{opened.label} checked {where}: {'cannot work as it is' if report.is_blocked else 'fine'}"
        )
        for one in verdicts:
            print_lines(verdict_text(one))
    is_served = all(one.outcome == "as_trained" for one in verdicts)
    ctx.exit(NO if report.is_blocked or not is_served else 0)


def _base(connected: RegistryOpener, opened: OpenedAdapter, base: str | None) -> BaseToCheck:
    """The base of the call, else the version's own; tells when the two are not the same."""
    version = opened.version
    if base is None:
        return version_base(connected, version) if version else BaseToCheck("no base", None)
    found = find_base(connected, base)
    if version and version.base_status == "verified" and found.record and found.record.id != version.base_id:
        own = version_base(connected, version).label
        print_err(f"warns: {opened.label} is for {own}, and {found.label} is another base")
    return found


def _with_weights(connected: RegistryOpener, source: Source, report: CheckReport) -> CheckReport:
    """The report with what only the weights can tell; a version's are fetched into the cache once."""
    from adaptry.checks.weights import check_weights

    if isinstance(source, Path):
        adapter = open_dir(source)
    else:
        with progress() as bars:
            adapter = open_revision(connected(), source, progress=bars)
    findings = sorted([*report.findings, *check_weights(adapter)], key=lambda one: _ORDER.index(one.severity))
    return report.model_copy(update={"findings": tuple(findings)})
