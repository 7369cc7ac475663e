"""`adaptry rollback`: move an alias back to its previous version."""

from __future__ import annotations

import click

from adaptry.core.refs import Label, Latest, Ref, parse_stored_alias
from adaptry.operations import promotion
from adaptry.registry.aliases import PRODUCTION
from adaptry.registry.interface import Registry
from adaptry_cli.alias_move import print_move
from adaptry_cli.arguments import REF, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option


@command()
@click.argument("ref", metavar="NAME[@ALIAS]", type=REF)
@registry_option
@json_option
def rollback(registry: Registry, ref: Ref, as_json: bool) -> None:
    """Move an alias back to its previous version.

    Without @ALIAS, moves prod. A second rollback undoes the first. If the earlier version was withdrawn, the
    rollback is refused, and the message names the last version before it that can be used.
    """
    require_usage(isinstance(ref.selector, Label | Latest), f"{ref} names a version; write {ref.name}@ALIAS")
    name = ref.selector.label if isinstance(ref.selector, Label) else PRODUCTION
    print_move(
        registry.versions, ref.name, promotion.rollback(registry, ref.name, parse_stored_alias(name)), as_json
    )
