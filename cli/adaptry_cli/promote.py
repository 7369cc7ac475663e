"""`adaptry promote`: move an alias to a version."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.operations import promotion
from adaptry.operations.promotion import PRODUCTION
from adaptry.registry.interface import Registry
from adaptry_cli.alias_move import only_from_option, print_move
from adaptry_cli.arguments import ALIAS, REF
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.out import json_option


@command()
@click.argument("ref", type=REF)
@click.option(
    "--to",
    "alias",
    default=PRODUCTION,
    show_default=True,
    metavar="ALIAS",
    type=ALIAS,
    help="The alias to move.",
)
@only_from_option
@registry_option
@json_option
def promote(registry: Registry, ref: Ref, alias: str, only_from: int | None, as_json: bool) -> None:
    """Move an alias (prod) to a version.

    `adaptry rollback` moves it back.
    """
    print_move(
        registry.versions, ref.name, promotion.promote(registry, ref, alias, only_from=only_from), as_json
    )
