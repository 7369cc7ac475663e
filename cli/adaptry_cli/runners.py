"""`adaptry runners`: the runners of jobs."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry_cli.connection import registry_option
from adaptry_cli.out import format_size, json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import format_when


@click.command()
@registry_option
@json_option
def runners(registry: Registry, as_json: bool) -> None:
    """List the runners of jobs."""
    found = registry.jobs.runners()
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("runner", "on", "devices", "tags", "at once", "memory", "heard of"),
            (
                (
                    each.id,
                    each.host or "",
                    ", ".join(each.devices),
                    ", ".join(each.tags),
                    str(each.concurrency),
                    format_size(each.memory),
                    format_when(each.seen_at),
                )
                for each in found
            ),
            right=("at once", "memory"),
        )
    else:
        print_err("nobody runs jobs; `adaptry work` does")
