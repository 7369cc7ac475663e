"""`adaptry alias set`, `rm`, `ls`; `promote` and `rollback`."""

from __future__ import annotations

import click

from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName, ByDigest, Label, Latest, Ref, parse_stored_alias
from adaptry.operations import promotion
from adaptry.operations.promotion import AliasMoveResult
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import NAME, REF, require_usage
from adaptry_cli.connection import registry_option
from adaptry_cli.out import json_option, print_err, print_json, print_out
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import format_when
from adaptry_cli.warnings import print_state_warning

PRODUCTION = "prod"

_only_from = click.option(
    "--was",
    "only_from",
    type=click.IntRange(0),
    metavar="VERSION",
    help="Move only from this version (0: only if the alias is new).",
)


@click.group()
def alias() -> None:
    """Name versions: prod, staging and the like.

    An alias moves only from where it was seen, and every move is history.
    """


@alias.command("set")
@click.argument("ref", type=REF)
@click.argument("alias", metavar="ALIAS")
@_only_from
@registry_option
@json_option
def set_(registry: Registry, ref: Ref, alias: str, only_from: int | None, as_json: bool) -> None:
    """Point an alias at a version."""
    _say_move(registry, ref.name, promotion.promote(registry, ref, alias, only_from=only_from), as_json)


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
    found = promotion.current_alias(registry, name, alias)
    if found is None:
        raise NotFound(f"{name} has no alias {alias}")
    registry.remove_alias(name, alias, found.generation)
    print_err(f"{name}@{alias} was at version {found.number} and is gone")


@alias.command()
@click.argument("name", type=NAME)
@registry_option
@json_option
def ls(registry: Registry, name: AdapterName, as_json: bool) -> None:
    """List an adapter's aliases."""
    found = registry.aliases(name)
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


@click.command()
@click.argument("ref", type=REF)
@click.option(
    "--to", "alias", default=PRODUCTION, show_default=True, metavar="ALIAS", help="The alias to move."
)
@_only_from
@registry_option
@json_option
def promote(registry: Registry, ref: Ref, alias: str, only_from: int | None, as_json: bool) -> None:
    """Move an alias (prod) to a version.

    As in: adaptry promote acme/tone@staging. `adaptry rollback` takes it back.
    """
    _say_move(registry, ref.name, promotion.promote(registry, ref, alias, only_from=only_from), as_json)


@click.command()
@click.argument("ref", metavar="NAME[@ALIAS]", type=REF)
@registry_option
@json_option
def rollback(registry: Registry, ref: Ref, as_json: bool) -> None:
    """Move an alias back to where it was.

    Without @ALIAS it is prod. Rolling back twice undoes the first.
    """
    require_usage(isinstance(ref.selector, Label | Latest), f"{ref} names a version; write {ref.name}@ALIAS")
    name = ref.selector.label if isinstance(ref.selector, Label) else PRODUCTION
    _say_move(registry, ref.name, promotion.rollback(registry, ref.name, parse_stored_alias(name)), as_json)


def _say_move(registry: Registry, name: AdapterName, move: AliasMoveResult, as_json: bool) -> None:
    found = move.alias
    _warn(registry, name, move)
    if as_json:
        print_json({**found.model_dump(mode="json"), "was": move.was})
        return
    print_out(f"{name}@{found.alias} {found.digest}")
    if move.was is None:
        print_err(f"{found.alias} is new, at version {found.number}")
    elif move.is_change:
        print_err(f"{found.alias} moved from version {move.was} to {found.number}")
    else:
        print_err(f"{found.alias} is at version {found.number} already")


def _warn(registry: Registry, name: AdapterName, move: AliasMoveResult) -> None:
    """What is deprecated, or was pushed past the checks for a reason of someone's own, should not go live unnoticed."""
    detail = registry.detail(Ref(name, ByDigest(move.alias.digest.hex)))
    print_state_warning(detail.version)
    if detail.forced and detail.report.is_blocked:
        print_err(
            f"warns: the checks refused version {move.alias.number} and it was forced: {detail.forced} "
            f"(`adaptry show {name}@{move.alias.number}` has what they found)"
        )
