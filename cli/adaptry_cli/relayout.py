"""`adaptry relayout`: an adapter's file in the layout of another version of PEFT and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Invalid
from adaptry_cli.connection import Connected
from adaptry_cli.derive_output import Target, landed, making_options, parent_named, say_landed
from adaptry_cli.inputs import base_named
from adaptry_cli.out import json_option, progress

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.compute.lazy_adapters.lazy_adapter import Parent


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option(
    "--to",
    "layout",
    required=True,
    type=click.Choice(["transformers4", "transformers5"]),
    help="transformers4: names and single experts as before; transformers5: as PEFT from 0.19 on writes them.",
)
@click.option("--base", metavar="NAME|DIR|ID", help="The base it is for; else the one the registry knows.")
@making_options
@json_option
def relayout(
    target: Target, connected: Connected, source: str, layout: str, base: str | None, as_json: bool
) -> None:
    """Rewrite an adapter's file in the layout of another version.

    The experts of a layer, one by one or as one parameter; the names of multimodal models. What the adapter does is
    the same, number by number. `adaptry inspect` says which layout a file is in. The base's shapes are needed, its
    weights are not.
    """
    from adaptry.compute.layout_conversion.convert import migrate
    from adaptry.compute.layout_conversion.module_names import LAYOUTS

    with progress() as told:
        parent = parent_named(connected, source, told)
    to = next(each for each in LAYOUTS if each == layout)
    draft = migrate(parent, _record(connected, base, parent), to)
    say_landed(draft, landed(draft, target, connected), as_json)


def _record(connected: Connected, base: str | None, parent: Parent) -> BaseRecord:
    """The shapes of the base: of the one named, else of the one that the parent is known to be for."""
    known = base_named(connected, base).record if base else parent.base
    if known is None:
        raise Invalid(
            f"what the modules of {parent.label} are called in another layout is told by its base: say --base NAME or "
            "--base ./DIR"
        )
    return known
