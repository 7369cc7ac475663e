"""`adaptry events`: the events of a registry, oldest first; with --follow, also new ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from adaptry.operations.watch import follow_events
from adaptry.registry.events import Events
from adaptry.registry.interface import Registry
from adaptry.registry.records import Event
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import json_option, print_json_line, print_out
from adaptry_cli.times import format_exact
from adaptry_cli.version_text import detail_text

_BATCH = 200


@command()
@click.option(
    "--follow",
    "goes_on",
    is_flag=True,
    help="Keep printing new events until you stop it; without --after, starting now.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="GLOB",
    help="Only events of adapters whose names match, such as 'acme/*'; may be repeated.",
)
@click.option("--after", type=WholeNumber(0), help="Begin after the event with this number.")
@registry_option
@json_option
def events(
    registry: Registry, goes_on: bool, adapters: tuple[str, ...], after: int | None, as_json: bool
) -> None:
    """Show the events of the registry, as they happen.

    Prints the events of all adapters that you may read, oldest first, each with its number. With --json, each
    line is one object. With --follow, the command reconnects after an outage of the registry, and misses no
    event.
    """
    happened = (
        follow_events(registry, after, adapters)
        if goes_on
        else _so_far(registry.events, after or 0, adapters)
    )
    for event in happened:
        if as_json:
            print_json_line(event)
        else:
            print_out(_line(event))
        if goes_on:
            sys.stdout.flush()


def _so_far(events: Events, after: int, adapters: tuple[str, ...]) -> Iterator[Event]:
    while True:
        news = events.read(after, _BATCH, adapters=adapters)
        yield from news.items
        if news.seq <= after:
            return
        after = news.seq


def _line(event: Event) -> str:
    what = str(event.name or "")
    if event.number is not None:
        what += f"@{event.number}"
    return "  ".join(
        filter(
            None, (f"{event.seq:>6}", format_exact(event.at), event.by, event.kind, what, detail_text(event))
        )
    )
