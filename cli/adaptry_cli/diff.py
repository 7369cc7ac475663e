"""`adaptry diff`: what differs between two adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adaptry_cli.arguments import SOURCE, Source
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.derive_output import open_parent
from adaptry_cli.differences import DiffSide, find_differences
from adaptry_cli.inputs import open_input
from adaptry_cli.out import (
    json_option,
    print_err,
    print_json,
    progress,
)
from adaptry_cli.similarity_output import print_distance
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.compute.comparing.results import AdapterDistance


@click.command()
@click.argument("before", metavar="REF|DIR", type=SOURCE)
@click.argument("after", metavar="REF|DIR", type=SOURCE)
@click.option("--weights", is_flag=True, help="Read the weights too: how far apart, module by module.")
@click.option(
    "--top",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="With --weights: show so many of the modules that are farthest apart.",
)
@lazy_registry_option
@json_option
def diff(
    connected: RegistryOpener, before: Source, after: Source, weights: bool, top: int, as_json: bool
) -> None:
    """Show what differs between two adapters.

    Compares what they are (method, base, modules, ranks, config) and their metrics; weights only by digest,
    unless they are asked for.
    """
    opened = [open_input(connected, source) for source in (before, after)]
    found = find_differences(*(DiffSide.of(one.adapter, one.version) for one in opened))
    apart = _weight_distance(connected, before, after) if weights else None
    if as_json:
        listed = [difference.as_json() for difference in found]
        print_json({"differences": listed, "weights": apart.model_dump(mode="json")} if apart else listed)
        return
    if found:
        print_table(
            ("what", opened[0].label, opened[1].label),
            ((difference.what, difference.before, difference.after) for difference in found),
        )
    else:
        print_err("no difference in what they are")
    if apart:
        print_distance(apart, top)


def _weight_distance(connected: RegistryOpener, before: Source, after: Source) -> AdapterDistance:
    from adaptry.compute.comparing.distance import measure_distance

    with progress() as bars:
        one, other = (open_parent(connected, source, bars) for source in (before, after))
        return measure_distance(one, other, bars)
