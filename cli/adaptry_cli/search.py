"""`adaptry search`: versions by what they are."""

from __future__ import annotations

import re

import click

from adaptry.registry.interface import Registry
from adaptry_cli.command import Command, command
from adaptry_cli.connection import registry_option
from adaptry_cli.out import (
    collect_pages,
    json_option,
    limit_option,
    print_err,
)
from adaptry_cli.version_table import print_versions

QUERY_HELP = """\b
Terms of a query:
  WORD                 a word in the name, the description or a tag
  FIELD:TEXT           name, namespace, base, method, module, trait, alias, tag, state, by;
                       TEXT may end in *
  FIELD:DIGEST         digest, parent; sha256:…, or its first digits and *
  FIELD<=NUMBER        rank, size, parameters, version, downloads; also = != < > >=
  metric.NAME>=NUMBER  the newest value; max:metric.NAME and min:metric.NAME take the extremes
  -TERM                excludes what TERM finds

Without a state: term, active and deprecated versions are found; state:* finds all."""
_EXCLUDING = re.compile(r"-[^\W\d].|-\"")  # an option of one letter ends after it


class _QueryCommand(Command):
    """A command whose arguments are terms: `-method:lora` is a term that excludes, not an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            return super().parse_args(ctx, args)
        excluding = [word for word in args if _EXCLUDING.match(word)]
        others = [word for word in args if not _EXCLUDING.match(word)]
        return super().parse_args(ctx, [*others, "--", *excluding])


@command(cls=_QueryCommand, epilog=QUERY_HELP)
@click.argument("query", nargs=-1)
@limit_option
@registry_option
@json_option
def search(registry: Registry, query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find versions by base, method, rank, module, metric and more.

    A version is found if all terms of the QUERY hold. The newest versions come first.
    """
    text = " ".join(query)
    found = collect_pages(lambda cursor, many: registry.versions.search(text, cursor, many), limit)
    print_versions(registry.bases, found, as_json)
    if not found:
        print_err("no version matches")
