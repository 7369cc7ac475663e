"""`adaptry search`: versions by what they are."""

from __future__ import annotations

import re

import click

from adaptry.core.query import GRAMMAR
from adaptry.registry.interface import Registry
from adaptry_cli.connection import registry_option
from adaptry_cli.out import (
    collect_pages,
    json_option,
    limit_option,
    print_err,
)
from adaptry_cli.version_table import print_versions

_EXCLUDING = re.compile(r"-[^\W\d].|-\"")  # options of one letter have nothing behind it


class _QueryCommand(click.Command):
    """A command whose arguments are terms: `-method:lora` excludes, and is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            return super().parse_args(ctx, args)
        excluding = [word for word in args if _EXCLUDING.match(word)]
        others = [word for word in args if not _EXCLUDING.match(word)]
        return super().parse_args(ctx, [*others, "--", *excluding])


@click.command(cls=_QueryCommand, epilog=f"A query: {GRAMMAR}.")
@click.argument("query", nargs=-1)
@limit_option
@registry_option
@json_option
def search(registry: Registry, query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find versions by base, method, rank, module, metric and more.

    As in: adaptry search 'base:org/model rank<=16 metric.accuracy>=0.9'. All terms must hold; newest first.
    """
    text = " ".join(query)
    found = collect_pages(lambda cursor, many: registry.versions.search(text, cursor, many), limit)
    print_versions(found, as_json)
    if not found:
        print_err("nothing matches")
