"""`adaptry events`: what happens in a registry, oldest first, to its end or for ever."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from adaptry.operations.watch import follow_events
from adaptry.registry.events import Events
from adaptry.registry.interface import Registry
from adaptry.registry.records import Event
from adaptry_cli.connection import registry_option
from adaptry_cli.out import json_option, print_out
from adaptry_cli.version_text import detail_text, format_when

_AT_ONCE = 200


@click.command()
@click.option(
    "--follow",
    "goes_on",
    is_flag=True,
    help="Wait for what comes, until you stop it; without --after, from now on.",
)
@click.option(
    "--adapter",
    "about",
    multiple=True,
    metavar="GLOB",
    help="Only of adapters with such a name, as in 'acme/*' (may be repeated).",
)
@click.option("--after", type=click.IntRange(0), help="Begin after the event of this number.")
@registry_option
@json_option
def events(
    registry: Registry, goes_on: bool, about: tuple[str, ...], after: int | None, as_json: bool
) -> None:
    """Show what happens in the registry, as it happens.

    Of all adapters that you may see, oldest first, each with its number; with --json, one object on each
    line. A registry that cannot be reached for a while is waited for with --follow, and nothing is missed.
    """
    happened = (
        follow_events(registry, after, about) if goes_on else _so_far(registry.events, after or 0, about)
    )
    for event in happened:
        if as_json:
            click.echo(event.model_dump_json())
        else:
            print_out(_line(event))
        if goes_on:
            sys.stdout.flush()


def _so_far(events: Events, after: int, about: tuple[str, ...]) -> Iterator[Event]:
    while True:
        news = events.read(after, _AT_ONCE, about=about)
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
            None, (f"{event.seq:>6}", format_when(event.at), event.by, event.kind, what, detail_text(event))
        )
    )
