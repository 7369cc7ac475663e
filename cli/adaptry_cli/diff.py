"""`adaptry diff`: the differences between two adapters."""

from __future__ import annotations

import click

from adaptry.core.errors import NotFound
from adaptry.core.refs import Latest, Ref
from adaptry.operations.comparison import compare_adapters
from adaptry_cli.arguments import SOURCE, Source, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import (
    format_count,
    json_option,
    print_err,
    print_json,
    progress,
)
from adaptry_cli.similarity_output import print_distance
from adaptry_cli.tables import print_table
from adaptry_cli.warnings import warn


@command()
@click.argument("before", metavar="REF|DIR", type=SOURCE)
@click.argument("after", metavar="[REF|DIR]", type=SOURCE, required=False)
@click.option(
    "--weights", is_flag=True, help="Also read the weights, and show how far apart they are in each module."
)
@click.option(
    "--top",
    type=WholeNumber(1),
    default=10,
    show_default=True,
    help="With --weights: number of modules to show, the most different first.",
)
@lazy_registry_option
@json_option
def diff(
    connected: RegistryOpener, before: Source, after: Source | None, weights: bool, top: int, as_json: bool
) -> None:
    """Show the differences between two adapters, or between the last two versions of one.

    With a NAME alone, compares the last two versions of that adapter. Compares methods, bases, modules,
    ranks, configs and metrics. Weights are compared by digest, or by value with --weights.
    """
    if after is None:
        before, after = _last_two(connected, before)
    with progress() as bars:
        compared = compare_adapters(connected, before, after, weights=weights, warn=warn, progress=bars)
    found, apart = compared.differences, compared.distance
    if as_json:
        listed = [difference.as_json() for difference in found]
        print_json({"differences": listed, "weights": apart.model_dump(mode="json")} if apart else listed)
        return
    if found:
        print_table(
            ("what", compared.before, compared.after),
            ((each.what, each.before or "none", each.after or "none") for each in found),
            cut=("what", *((compared.before, compared.after) if compared.before != compared.after else ())),
        )
    else:
        print_err("no difference in method, base, modules, ranks, config and metrics")
    if apart:
        print_distance(apart, top)


def _last_two(connected: RegistryOpener, source: Source) -> tuple[Ref, Ref]:
    """The last two versions of an adapter, whatever their state. Raises a usage error, `NotFound`."""
    require_usage(
        isinstance(source, Ref) and isinstance(source.selector, Latest),
        f"nothing to compare {source} with: name a second version or folder, or only an adapter to"
        " compare its last two versions",
    )
    assert isinstance(source, Ref)
    newest = connected().versions.list(source.name, None, 2).items
    if len(newest) < 2:
        raise NotFound(f"{source.name} has {format_count(len(newest), 'version')}; two are needed to compare")
    new, old = newest
    return old.revision_ref, new.revision_ref
