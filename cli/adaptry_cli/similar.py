"""`adaptry similar`: find adapters that are nearly the same."""

from __future__ import annotations

import click

from adaptry.compute.comparison.results import SimilarAdapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import Invalid
from adaptry.core.refs import Ref
from adaptry_cli.arguments import BASE, SOURCE, Source
from adaptry_cli.base_names import base_title
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option
from adaptry_cli.number_options import DecimalNumber, WholeNumber
from adaptry_cli.output import format_count, format_number, json_option, print_err, print_json, progress
from adaptry_cli.renamed_option import RenamedOption
from adaptry_cli.tables import print_table
from adaptry_cli.warnings import warn


@command()
@click.argument("subject", metavar="REF|DIR", type=SOURCE)
@click.option(
    "--base",
    metavar="NAME|ID",
    type=BASE,
    help="Search the adapters of this base. Default: the adapter's own base.",
)
@click.option(
    "--limit", type=WholeNumber(1), default=10, show_default=True, help="Maximum number of adapters to show."
)
@click.option(
    "--min-cosine",
    "above",
    cls=RenamedOption,
    former="--above",
    type=DecimalNumber(0, 1),
    default=0.9,
    show_default=True,
    help="The smallest cosine that counts as similar.",
)
@lazy_registry_option
@json_option
def similar(
    connected: RegistryOpener, subject: Source, base: str | None, limit: int, above: float, as_json: bool
) -> None:
    """Find adapters that are nearly the same.

    Compares the updates themselves (not names, ranks or files) with those of every version of the same base
    that you may read. Each version's weights are read once, and their signature is kept for later
    comparisons. Adapters that are not plain LoRAs are compared by the digest of their weights.
    """
    from adaptry.operations.similarity import find_similar as find
    from adaptry.operations.sources import open_parent

    with progress() as bars:
        parent = open_parent(connected, subject, warn=warn, progress=bars)
        key = base or _base_of(connected, subject, parent)
        found = find(connected(), parent, key, limit=limit, above=above, progress=bars)
    for note in found.notes:
        print_err(f"note: {note}")
    if found.uncompared is not None:
        print_err(f"only versions with exactly the same weights are found: {found.uncompared}")
    elif found.by_weights_only:
        print_err(
            f"{format_count(found.by_weights_only, 'version')} compared by weights digest only:"
            " not plain LoRAs"
        )
    if as_json:
        print_json(found)
    elif found.found:
        print_table(
            ("version", "cosine", "norm ratio", "shared modules", ""),
            map(_row, found.found),
            right=("cosine", "norm ratio", "shared modules"),
        )
    else:
        missing = "similar adapter" if found.uncompared is None else "version with the same weights"
        print_err(
            f"no {missing} among {format_count(found.looked_at, 'version')} of"
            f" {base_title(connected().bases, key)}"
        )
    if found.likely_more:
        print_err(f"about {found.likely_more} more are similar; --limit shows more")


def _base_of(connected: RegistryOpener, subject: Source, parent: ParentAdapter) -> str:
    """The base whose adapters are searched: the version's, else the one that the config names, by content if
    it is a folder on this machine.
    """
    if isinstance(subject, Ref):
        version = connected().versions.get(subject)
        if version.base_id or version.base_name:
            return str(version.base_id or version.base_name)
    else:
        from adaptry.operations.base_recognition import BaseRecogniser

        info = BaseRecogniser(connected().bases).trained_on(parent.adapter).info
        if info is not None:
            return str(info.id)
    if parent.adapter.config.base_name is None:
        raise Invalid(
            f"{parent.label} does not name its base; pass --base NAME to choose the adapters to compare with"
        )
    return parent.adapter.config.base_name


def _row(found: SimilarAdapter) -> tuple[str, ...]:
    return (
        found.ref,
        "" if found.cosine is None else f"{found.cosine:.4f}",
        "" if found.ratio is None else format_number(found.ratio),
        "" if found.shared_modules is None else f"{found.shared_modules} of {found.modules}",
        "same weights" if found.same_weights else "",
    )
