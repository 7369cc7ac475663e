"""`adaptry alias set`, `rm` and `ls`: name versions."""

from __future__ import annotations

import click

from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName, Label, Latest, Ref
from adaptry.operations import promotion
from adaptry.registry.interface import Registry
from adaptry_cli.alias_move import only_from_option, print_move
from adaptry_cli.arguments import NAME, REF, require_usage
from adaptry_cli.connection import registry_option
from adaptry_cli.out import json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import format_when


@click.group()
def alias() -> None:
    """Name versions: prod, staging and the like.

    An alias moves only from where it was seen, and every move is history.
    """


@alias.command("set")
@click.argument("ref", type=REF)
@click.argument("alias", metavar="ALIAS")
@only_from_option
@registry_option
@json_option
def set_(registry: Registry, ref: Ref, alias: str, only_from: int | None, as_json: bool) -> None:
    """Point an alias at a version."""
    print_move(
        registry.versions, ref.name, promotion.promote(registry, ref, alias, only_from=only_from), as_json
    )


@alias.command()
@click.argument("ref", metavar="NAME[@ALIAS]", type=REF)
@click.argument("alias", metavar="[ALIAS]", required=False)
@registry_option
def rm(registry: Registry, ref: Ref, alias: str | None) -> None:
    """Remove an alias; its version stays.

    As in: adaptry alias rm acme/tone@staging, or adaptry alias rm acme/tone staging.
    """
    labelled = isinstance(ref.selector, Label)
    require_usage(labelled != (alias is not None), f"say which alias once: {ref.name}@ALIAS")
    require_usage(
        labelled or isinstance(ref.selector, Latest), f"{ref} names a version; write {ref.name}@ALIAS"
    )
    name, alias = ref.name, ref.selector.label if isinstance(ref.selector, Label) else alias
    assert alias is not None
    found = promotion.current_alias(registry.aliases, name, alias)
    if found is None:
        raise NotFound(f"{name} has no alias {alias}")
    registry.aliases.remove(name, alias, found.generation)
    print_err(f"{name}@{alias} was at version {found.number} and is gone")


@alias.command()
@click.argument("name", type=NAME)
@registry_option
@json_option
def ls(registry: Registry, name: AdapterName, as_json: bool) -> None:
    """List an adapter's aliases."""
    found = registry.aliases.list(name)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("alias", "version", "digest", "moved", "by", "generation"),
            (
                (
                    one.alias,
                    str(one.number),
                    one.digest.brief,
                    format_when(one.moved_at),
                    one.moved_by,
                    str(one.generation),
                )
                for one in found
            ),
            right=("version", "generation"),
        )
    else:
        print_err(f"{name} has no aliases; `adaptry alias set {name}@VERSION prod` sets one")
