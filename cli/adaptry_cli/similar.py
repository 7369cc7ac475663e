"""`adaptry similar`: adapters that are nearly the same as one."""

from __future__ import annotations

import click

from adaptry.compute.comparing.results import Resemblance
from adaptry.compute.lazy_adapters.lazy_adapter import Parent
from adaptry.core.errors import Invalid
from adaptry.core.refs import Ref
from adaptry_cli.arguments import SOURCE, Source
from adaptry_cli.connection import Connected, connected_option
from adaptry_cli.derive_output import parent_of
from adaptry_cli.out import counted, json_option, number, progress, say_json, tell
from adaptry_cli.tables import say_table


@click.command()
@click.argument("subject", metavar="REF|DIR", type=SOURCE)
@click.option(
    "--base", metavar="NAME|ID", help="Look among the adapters of this base; else of the adapter's own."
)
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Show at most so many.")
@click.option(
    "--above",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="The smallest cosine that counts as similar.",
)
@connected_option
@json_option
def similar(
    connected: Connected, subject: Source, base: str | None, limit: int, above: float, as_json: bool
) -> None:
    """Find adapters that are nearly the same.

    Compares the updates themselves (not names, ranks or files) with those of every version of the same base that you may
    read. The first time each is read once; after that its signature is enough. An adapter that is no plain LoRA is
    compared by the digest of its weights.
    """
    from adaptry.operations.similarity import similar as find

    with progress() as told:
        parent = parent_of(connected, subject, told)
        key = base or _base_of(connected, subject, parent)
        found = find(connected(), parent, key, limit=limit, above=above, progress=told)
    for note in found.notes:
        tell(f"note: {note}")
    if found.by_weights_only:
        tell(f"{counted(found.by_weights_only, 'version')} compared by weights digest only: no plain LoRA")
    if as_json:
        say_json(found)
    elif found.found:
        say_table(
            ("version", "cosine", "norm ratio", "shared modules", ""),
            map(_row, found.found),
            right=("cosine", "norm ratio", "shared modules"),
        )
    else:
        tell(f"nothing like it among {counted(found.looked_at, 'version')} of {key}")
    if found.likely_more:
        tell(f"there are about {found.likely_more} more (--limit)")


def _base_of(connected: Connected, subject: Source, parent: Parent) -> str:
    """The base to look among: the version's, else the one that the config names."""
    if isinstance(subject, Ref):
        version = connected().version(subject)
        if version.base_id or version.base_name:
            return str(version.base_id or version.base_name)
    if parent.adapter.config.base_name is None:
        raise Invalid(
            f"{parent.label} does not say which base it is for: --base NAME says among whose to look"
        )
    return parent.adapter.config.base_name


def _row(found: Resemblance) -> tuple[str, ...]:
    return (
        found.ref,
        "" if found.cosine is None else f"{found.cosine:.4f}",
        "" if found.ratio is None else number(found.ratio),
        "" if found.shared_modules is None else f"{found.shared_modules} of {found.modules}",
        "same weights" if found.same_weights else "",
    )
