"""`adaptry history`: the history of an adapter, newest first."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import NAME
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when
from adaptry_cli.version_text import detail_text


@command()
@click.argument("name", type=NAME)
@limit_option
@registry_option
@exact_times_option
@json_option
def history(registry: Registry, name: AdapterName, limit: int, as_json: bool) -> None:
    """Show the history of an adapter.

    Lists pushes, alias moves, metrics and edits, each with its author and time, newest first.
    """
    events = collect_pages(lambda cursor, many: registry.adapters.history(name, cursor, many), limit)
    if as_json:
        print_json(events)
        return
    print_table(
        ("when", "who", "what", "version", "detail"),
        (
            (
                format_when(event.at),
                event.by,
                event.kind,
                "" if event.number is None else str(event.number),
                detail_text(event),
            )
            for event in events
        ),
        right=("version",),
        cut=("detail",),
        drop=("who",),
    )
