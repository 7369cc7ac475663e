"""`adaptry metrics log` and `show`: numbers attached to a version, appended and never overwritten."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import REF, parse_metrics
from adaptry_cli.connection import registry_option
from adaptry_cli.out import format_number, json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import format_when


@click.group()
def metrics() -> None:
    """Log and show metrics of a version.

    Every value is kept, with who logged it and when; the newest counts in searches.
    """


@metrics.command()
@click.argument("ref", type=REF)
@click.argument("pairs", metavar="NAME=VALUE...", nargs=-1, required=True)
@registry_option
def log(registry: Registry, ref: Ref, pairs: tuple[str, ...]) -> None:
    """Add values of metrics to a version."""
    values = parse_metrics(pairs)
    registry.metrics.log(ref, values)
    print_err(f"logged {', '.join(values)} for {ref}")


@metrics.command()
@click.argument("ref", type=REF)
@registry_option
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
        )
    else:
        print_err(f"no metrics for {ref}; `adaptry metrics log {ref} NAME=VALUE` adds one")
