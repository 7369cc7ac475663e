"""`adaptry runners`: the runners of jobs."""

from __future__ import annotations

from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import format_size, json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when


@command()
@registry_option
@exact_times_option
@json_option
def runners(registry: Registry, as_json: bool) -> None:
    """List the runners: processes that run jobs."""
    found = registry.jobs.runners()
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("runner", "host", "devices", "tags", "steps", "memory", "last heartbeat"),
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
            right=("steps", "memory"),
            cut=("tags",),
            drop=("host", "tags", "devices", "steps"),
        )
    else:
        print_err("no runner is running; `adaptry work` starts one")
