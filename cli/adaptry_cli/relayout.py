"""`adaptry relayout`: an adapter's file in the layout of another version of PEFT and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Invalid
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import (
    OutputTarget,
    open_named_parent,
    output_options,
    print_result,
    write_result,
)
from adaptry_cli.inputs import find_base
from adaptry_cli.out import json_option, progress

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter


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
@output_options
@json_option
def relayout(
    target: OutputTarget, connected: RegistryOpener, source: str, layout: str, base: str | None, as_json: bool
) -> None:
    """Rewrite an adapter's file in the layout of another version.

    The experts of a layer, one by one or as one parameter; the names of multimodal models. What the adapter does is
    the same, number by number. `adaptry inspect` says which layout a file is in. The base's shapes are needed, its
    weights are not.
    """
    from adaptry.compute.layout_conversion.convert import convert_layout
    from adaptry.compute.layout_conversion.module_names import LAYOUTS

    with progress() as told:
        parent = open_named_parent(connected, source, told)
    to = next(each for each in LAYOUTS if each == layout)
    draft = convert_layout(parent, _record(connected, base, parent), to)
    print_result(draft, write_result(draft, target, connected), as_json)


def _record(connected: RegistryOpener, base: str | None, parent: ParentAdapter) -> BaseRecord:
    """The shapes of the base: of the one named, else of the one that the parent is known to be for."""
    known = find_base(connected, base).record if base else parent.base
    if known is None:
        raise Invalid(
            f"what the modules of {parent.label} are called in another layout is told by its base: say --base NAME or "
            "--base ./DIR"
        )
    return known
