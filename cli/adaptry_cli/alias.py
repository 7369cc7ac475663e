"""`adaptry alias set`, `rm`, `ls` and `rewrites`: movable names for versions."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName, Label, Latest, Ref
from adaptry.operations import promotion
from adaptry.registry.aliases import unknown_alias
from adaptry.registry.interface import Registry
from adaptry_cli.alias_move import expect_option, print_move
from adaptry_cli.arguments import ALIAS, NAME, REF, require_usage
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option, print_done, print_err, print_json, print_lines
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when


@group()
def alias() -> None:
    """Point aliases such as prod and staging at versions.

    A move fails if someone else has moved the alias since it was read. Every move is recorded.
    """


@alias.command("set")
@click.argument("ref", type=REF)
@click.argument("alias", metavar="ALIAS", type=ALIAS)
@expect_option
@registry_option
@json_option
def set_(registry: Registry, ref: Ref, alias: str, expect: int | None, as_json: bool) -> None:
    """Point an alias at a version."""
    print_move(registry.versions, ref.name, promotion.promote(registry, ref, alias, expect=expect), as_json)


@alias.command()
@click.argument("ref", metavar="NAME[@ALIAS]", type=REF)
@click.argument("alias", metavar="[ALIAS]", required=False, type=ALIAS)
@registry_option
@json_option
def rm(registry: Registry, ref: Ref, alias: str | None, as_json: bool) -> None:
    """Remove an alias; its version stays.

    NAME@ALIAS and NAME ALIAS mean the same.
    """
    labelled = isinstance(ref.selector, Label)
    require_usage(labelled != (alias is not None), f"name the alias once: {ref.name}@ALIAS")
    require_usage(
        labelled or isinstance(ref.selector, Latest), f"{ref} names a version; write {ref.name}@ALIAS"
    )
    name, alias = ref.name, ref.selector.label if isinstance(ref.selector, Label) else alias
    assert alias is not None
    found = promotion.current_alias(registry.aliases, name, alias)
    if found is None:
        raise unknown_alias(name, alias)
    registry.aliases.remove(name, alias, found.generation)
    print_done(
        {"name": str(name), "alias": alias, "was": found.number},
        f"removed {name}@{alias}, which was at version {found.number}",
        as_json,
    )


@alias.command()
@click.argument("name", type=NAME)
@registry_option
@exact_times_option
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
            drop=("generation", "digest", "by", "moved"),
        )
    else:
        print_err(f"{name} has no aliases; `adaptry alias set {name}@VERSION prod` sets one")


@alias.command()
@click.argument("refs", nargs=-1, required=True)
@click.option(
    "--pool", required=True, metavar="POOL", help="Name of the InferencePool whose requests are rewritten."
)
@click.option(
    "--name", default="adaptry", show_default=True, metavar="OBJECT", help="Name of the Kubernetes object."
)
@registry_option
@json_option
def rewrites(registry: Registry, refs: tuple[str, ...], pool: str, name: str, as_json: bool) -> None:
    """Print aliases as an InferenceModelRewrite, for a router in front of several engines.

    The router then rewrites requests for the aliases to the names under which engines load the versions;
    rollouts become weights. Prints YAML, or JSON with --json.
    """
    import yaml

    from adaptry.operations.model_rewrites import build_model_rewrite

    found = build_model_rewrite(registry, refs, pool, name)
    if as_json:
        print_json(found)
    else:
        print_lines(yaml.safe_dump(found, sort_keys=False).splitlines())
    if not found["spec"]["rules"]:
        print_err("no alias matches")
