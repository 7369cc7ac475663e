"""`adaptry lineage`: the ancestors or descendants of a version, as a tree."""

from __future__ import annotations

from typing import Any

import click

from adaptry.core.refs import Ref
from adaptry.operations.lineage import ancestor_tree, descendant_tree
from adaptry.operations.recipe_replay import replayable_recipe
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import REF, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option, print_err, print_json, print_lines
from adaptry_cli.renamed_option import RenamedOption


@command()
@click.argument("ref", type=REF)
@click.option(
    "--descendants",
    "down",
    cls=RenamedOption,
    former="--down",
    is_flag=True,
    help="Show the versions that were made from it instead.",
)
@click.option(
    "--recipe", "as_recipe", is_flag=True, help="Print a recipe with which `adaptry combine` reproduces it."
)
@registry_option
@json_option
def lineage(registry: Registry, ref: Ref, down: bool, as_recipe: bool, as_json: bool) -> None:
    """Show which versions a version was made from, and how.

    Prints the tree of its parents, their parents and so on, each with its recipe in one line and the energy
    that it kept, if that was recorded. A parent that is not in this registry, or that you may not read, is
    shown by its digest.
    """
    if as_recipe:
        require_usage(not down, "pass --descendants or --recipe, not both")
        _print_recipe(replayable_recipe(registry, ref), as_json)
        return
    root = descendant_tree(registry, ref) if down else ancestor_tree(registry, ref)
    if as_json:
        print_json(root)
        return
    print_lines(root.lines())
    if not root.relatives and not root.unregistered_inputs:
        print_err("no version was derived from it" if down else "it was not derived from another adapter")


def _print_recipe(recipe: dict[str, Any], as_json: bool) -> None:
    """(`Any`: JSON.)"""
    if as_json:
        print_json(recipe)
        return
    import yaml

    click.echo(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), nl=False)
