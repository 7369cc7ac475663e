"""`adaptry metrics log` and `show`: numbers attached to a version; values are added and never overwritten."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import REF, parse_metrics
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.output import format_number, json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when


@group()
def metrics() -> None:
    """Log and show metrics of a version.

    Every value is kept, with who logged it and when. Searches use the newest value of a metric.
    """


@metrics.command()
@click.argument("ref", type=REF)
@click.argument("pairs", metavar="NAME=VALUE...", nargs=-1, required=True)
@registry_option
@json_option
def log(registry: Registry, ref: Ref, pairs: tuple[str, ...], as_json: bool) -> None:
    """Log values of metrics for a version."""
    values = parse_metrics(pairs)
    registry.metrics.log(ref, values)
    print_done({"version": str(ref), "metrics": values}, f"logged {', '.join(values)} for {ref}", as_json)


@metrics.command()
@click.argument("ref", type=REF)
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, ref: Ref, as_json: bool) -> None:
    """Show every value that was logged for a version, oldest first."""
    found = registry.metrics.list(ref)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("metric", "value", "version", "when", "who"),
            (
                (
                    entry.metric,
                    format_number(entry.value),
                    str(entry.number),
                    format_when(entry.logged_at),
                    entry.logged_by,
                )
                for entry in found
            ),
            right=("value", "version"),
            drop=("who",),
        )
    else:
        print_err(f"no metrics for {ref}; `adaptry metrics log {ref} NAME=VALUE` logs one")
