"""`adaptry check` and `inspect`: what an adapter is, and whether it can work."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.adapter.view import open_dir
from adaptry.registry import Registry
from adaptry.report import Report
from adaptry.transfer import open_revision
from adaptry_cli.abilities import facts_of_use, json_of_use
from adaptry_cli.arguments import SOURCE, Source
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import json_option, progress, say_json, say_lines, tell
from adaptry_cli.showing import facts_of_spec, findings_text, json_of_spec
from adaptry_cli.sources import base_parameters, base_record, look_into
from adaptry_cli.tables import say_facts

_ORDER = ("blocks", "warns", "notes")


@click.command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
@click.option("--base", metavar="NAME|DIR|ID", help="The base to check against.")
@click.option(
    "--weights", is_flag=True, help="Read the weights too: NaN, infinity, updates that are all zero."
)
@registry_option
@json_option
@click.pass_context
def check(
    ctx: click.Context, registry: Registry, source: Source, base: str | None, weights: bool, as_json: bool
) -> None:
    """Check an adapter, alone or against a base.

    Reads headers and configs, so it takes no time. Exit code 1 means that it cannot work as it is; every finding
    says why and what to do.
    """
    from adaptry.checks import check as check_adapter

    opened = look_into(registry, source)
    record, base_name = base_record(registry, base) if base else (None, None)
    report = check_adapter(opened.adapter, record, base_name)
    if weights:
        report = _with_weights(registry, source, report)
    if as_json:
        say_json({"blocked": report.is_blocked, **report.model_dump(mode="json")})
    else:
        say_lines(findings_text(report.findings).split("\n"))
        against = f"against {report.base}" if report.base else "on its own"
        tell(f"{opened.label} checked {against}: {'cannot work as it is' if report.is_blocked else 'fine'}")
    ctx.exit(NO if report.is_blocked else 0)


@click.command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
@registry_option
@json_option
def inspect(registry: Registry, source: Source, as_json: bool) -> None:
    """Show what an adapter is, from its files, and what can be done with it.

    Method, modules with ranks and scales, extra weights, dtypes; its share of the base and the memory it takes when
    served; whether it can be merged or written as a LoRA. Read from headers and config, never from a form.
    """
    opened = look_into(registry, source)
    spec = opened.adapter.spec
    of_base = base_parameters(registry, opened)
    if as_json:
        say_json({**json_of_spec(spec), **json_of_use(opened.adapter, of_base)})
        return
    facts = facts_of_use(opened.adapter, of_base)
    say_facts(
        [("adapter", opened.label), ("base", spec.base_name or "not named"), *facts_of_spec(spec), *facts]
    )
    for left, why in opened.adapter.left_out.items():
        tell(f"not part of it: {left} ({why})")


def _with_weights(registry: Registry, source: Source, report: Report) -> Report:
    """The report with what only the weights can tell; a version's are fetched into the cache once."""
    from adaptry.checks.weights import check_weights

    if isinstance(source, Path):
        adapter = open_dir(source)
    else:
        with progress() as told:
            adapter = open_revision(registry, source, progress=told)
    findings = sorted([*report.findings, *check_weights(adapter)], key=lambda one: _ORDER.index(one.severity))
    return report.model_copy(update={"findings": tuple(findings)})
