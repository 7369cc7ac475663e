"""`adaptry lineage`: what a version was made from, or what was made from it, as a tree."""

from __future__ import annotations

from collections.abc import Iterator

import click

from adaptry.core.refs import Ref
from adaptry.operations.lineage import LineageNode, ancestor_tree, descendant_tree
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import REF
from adaptry_cli.connection import registry_option
from adaptry_cli.out import format_number, json_option, print_err, print_json, print_lines


@click.command()
@click.argument("ref", type=REF)
@click.option("--down", is_flag=True, help="Show what was made from it, instead of what it was made from.")
@registry_option
@json_option
def lineage(registry: Registry, ref: Ref, down: bool, as_json: bool) -> None:
    """Show what a version was made from, and how.

    A tree of its parents, theirs and so on; each with its recipe in one line and the share of energy that was
    kept, where that was recorded. A parent that is not in this registry, or not yours to see, is a digest.
    """
    root = descendant_tree(registry, ref) if down else ancestor_tree(registry, ref)
    if as_json:
        print_json(root)
        return
    print_lines(_lines(root))
    if not root.relatives and not root.outside:
        print_err("nothing was made from it" if down else "it was made from no other adapter")


def _lines(relative: LineageNode, first: str = "", others: str = "") -> Iterator[str]:
    """`relative` behind `first`, and all below it behind `others`."""
    yield first + _text(relative)
    below = list(relative.relatives)
    notes = [f"a folder, weights {digest.brief}" for digest in relative.outside]
    if relative.is_cut:
        notes.append("… and more")
    last = len(below) + len(notes) - 1
    for place, each in enumerate(below):
        yield from _lines(each, *_branches(others, place == last))
    for place, note in enumerate(notes, len(below)):
        yield _branches(others, place == last)[0] + note


def _branches(others: str, is_last: bool) -> tuple[str, str]:
    return (f"{others}└─ ", f"{others}   ") if is_last else (f"{others}├─ ", f"{others}│  ")


def _text(relative: LineageNode) -> str:
    if not relative.refs:
        return f"{relative.digest.brief}  not here"
    parts = [" = ".join(relative.refs)]
    if relative.made:
        parts.append(relative.made)
    if relative.kept is not None:
        parts.append(f"kept {format_number(relative.kept)}")
    if relative.is_repeated:
        parts.append("(as above)")
    return "  ".join(parts)
