"""`adaptry check` and `inspect`: what an adapter is, and whether it can work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.adapters.adapter import open_dir
from adaptry.core.report import CheckReport
from adaptry.operations.transfer import open_revision
from adaptry.registry.records import TensorInspection
from adaptry_cli.arguments import RUNTIME, SOURCE, Source
from adaptry_cli.capabilities import facts_of_use, json_of_use
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.inputs import (
    BaseToCheck,
    OpenedAdapter,
    base_parameters,
    find_base,
    open_input,
    version_base,
)
from adaptry_cli.out import json_option, print_err, print_json, print_lines, progress
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.verdicts import facts_of_verdicts, json_of_verdicts, verdict_text
from adaptry_cli.version_text import facts_of_spec, findings_text, json_of_spec, row_of_tensor

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

    Reads headers and configs, so it takes no time. Exit code 1 means that it cannot work as it is, or that an engine
    refuses it or serves something else than was trained; every finding says why and what to do.
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
        told = {"verdicts": [one.model_dump(mode="json") for one in verdicts]} if runtimes else {}
        print_json({"blocked": report.is_blocked, **report.model_dump(mode="json"), **told})
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


@click.command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
@click.option(
    "--weights",
    is_flag=True,
    help="List every tensor with its norm and its numbers of NaN and infinite elements.",
)
@lazy_registry_option
@json_option
def inspect(connected: RegistryOpener, source: Source, weights: bool, as_json: bool) -> None:
    """Show what an adapter is, from its files, and what can be done with it.

    Method, modules with ranks and scales, extra weights, dtypes; its share of the base and the memory it takes when
    served; whether it can be merged or written as a LoRA, and which engines serve it as trained. Read from headers and
    config, never from a form.

    With --weights, the registry inspects a version now if it was pushed before registries inspected weights.
    """
    from adaptry.checks.runtimes import check_all_runtimes

    opened = open_input(connected, source)
    spec = opened.adapter.spec
    of_base = base_parameters(connected, opened)
    record = version_base(connected, opened.version).record if opened.version else None
    served = check_all_runtimes(opened.adapter, record)
    tensors = _tensors(connected, source, opened) if weights else ()
    if as_json:
        of_use = json_of_use(opened.adapter, of_base)
        listed = {"tensors": [one.model_dump(mode="json") for one in tensors]} if weights else {}
        print_json({**json_of_spec(spec), **of_use, "runtimes": json_of_verdicts(served), **listed})
        return
    facts = [*facts_of_use(opened.adapter, of_base), *facts_of_verdicts(served)]
    print_facts(
        [("adapter", opened.label), ("base", spec.base_name or "not named"), *facts_of_spec(spec), *facts]
    )
    for left, why in opened.adapter.left_out.items():
        print_err(f"not part of it: {left} ({why})")
    if weights:
        columns = ("tensor", "norm", "NaN", "infinite")
        print_table(columns, map(row_of_tensor, tensors), right=columns[1:])


def _tensors(connected: RegistryOpener, source: Source, opened: OpenedAdapter) -> Sequence[TensorInspection]:
    """Of a folder, inspected here; of a version, as its registry found them."""
    from adaptry.adapters.inspection.files import inspect_content
    from adaptry.adapters.inspection.inspector import Inspector
    from adaptry.registry.paging import iter_items
    from adaptry.registry.tensor_listing import list_tensors

    if isinstance(source, Path):
        with closing(Inspector()) as inspector:
            return tuple(list_tensors(inspect_content(inspector, opened.adapter.content)))
    registry, ref = connected(), source
    return tuple(iter_items(lambda cursor: registry.inspect_tensors(ref, cursor, 200)))


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
        with progress() as told:
            adapter = open_revision(connected(), source, progress=told)
    findings = sorted([*report.findings, *check_weights(adapter)], key=lambda one: _ORDER.index(one.severity))
    return report.model_copy(update={"findings": tuple(findings)})
