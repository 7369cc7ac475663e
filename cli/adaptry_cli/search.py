"""`adaptry search`: finds versions by their properties."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from adaptry.registry.interface import Registry
from adaptry.registry.records import Page, VersionInfo
from adaptry_cli.arguments import QUERY, SEARCH_ORDER
from adaptry_cli.command import Command, command
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_err
from adaptry_cli.version_table import print_versions

QUERY_HELP = """\b
Terms of a query:
  WORD                 a word in the name, the description or a tag
  FIELD:TEXT           name, namespace, base, method, module, trait, alias, tag, licence, state,
                       by, finding, loaded (a worker or engine); TEXT may end in *
  FIELD:DIGEST         digest, parent; sha256:…, or its first digits and *
  FIELD<=NUMBER        rank, alpha, size, parameters, version, downloads, findings; also = != < > >=
  FIELD>=DATE          created, updated (its adapter); 2026-01-31, 2026-01, or how long ago: 7d
  metric.NAME>=NUMBER  the newest value; max:metric.NAME and min:metric.NAME take the extremes
  eval.TASK.METRIC>=N  the newest evidence; eval.TASK.METRIC,FILTER for one of several filters
  has:FIELD            alias, tag, trait, parent, finding, licence, rank, alpha, metric.NAME,
                       eval.TASK, eval.TASK.METRIC
  fits:ENGINE          an engine serves it as trained: fits:vllm@0.32,max_lora_rank=64
  -TERM, -(…)          excludes what TERM or the group finds
  A OR B, ( )          either; adjacent terms bind more tightly: a b OR c is (a b) OR c

Without a state: term, active and deprecated versions are found; state:* finds all."""
_EXCLUDING = re.compile(r"-[^\W\d].|-[\"(]")  # a short option ends after its letter
_MARK = "\0"  # a character that arguments never contain


class _QueryCommand(Command):
    """A command whose arguments are terms: `-method:lora` is a term that excludes, not an option. Their
    order matters, so such words are marked, and not moved behind a `--`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            return super().parse_args(ctx, args)
        return super().parse_args(
            ctx, [f"{_MARK}{word}" if _EXCLUDING.match(word) else word for word in args]
        )


@command(cls=_QueryCommand, epilog=QUERY_HELP)
@click.argument("query", nargs=-1, type=QUERY)
@click.option(
    "--sort",
    metavar="KEY",
    default="newest",
    show_default=True,
    type=SEARCH_ORDER,
    help=(
        "newest, name, created, updated, downloads, rank, alpha, size, metric.NAME or"
        " eval.TASK.METRIC. Names are sorted alphabetically, all other keys largest or newest first; versions"
        " without a value come last."
    ),
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@limit_option
@registry_option
@json_option
def search(
    registry: Registry, query: tuple[str, ...], sort: str, reverse: bool, limit: int, as_json: bool
) -> None:
    """Find versions by base, method, rank, module, metric and more.

    Finds the versions that match all terms of the QUERY. OR and parentheses, which must be quoted in a shell,
    combine terms. The newest versions come first, unless --sort sets another order.
    """
    text = " ".join(query).replace(_MARK, "")

    def page(cursor: str | None, count: int) -> Page[VersionInfo]:
        return registry.versions.search(text, cursor, count, sort=sort, reverse=reverse)

    found = collect_pages(page, limit)
    print_versions(registry.bases, found, as_json)
    if not found:
        print_err(f"no version matches{_hint_of_word(text)}")
    elif not _has_value(registry, sort, found):
        print_err(f"none of these versions has {sort}, so the newest come first{_hint_of_sort(sort, found)}")


def _has_value(registry: Registry, sort: str, found: Sequence[VersionInfo]) -> bool:
    """Whether the first version has the metric that the search sorts by: versions without it come last."""
    key, _, metric = sort.partition(".")
    if key == "metric":
        return metric in found[0].metrics
    if key == "eval":
        measured = registry.versions.search(f'has:"{sort}" digest:{found[0].digest} state:*', None, 1)
        return bool(measured.items) or measured.next is not None
    return True


def _hint_of_sort(sort: str, found: Sequence[VersionInfo]) -> str:
    from adaptry.core.suggestions import suggestion

    return suggestion(sort, sorted({f"metric.{name}" for version in found for name in version.metrics}))


def _hint_of_word(query: str) -> str:
    """The term for a method or trait that a query has as a plain word; else empty."""
    from adaptry.adapters.methods import METHODS
    from adaptry.adapters.methods.lora_config import TRAITS

    for word in (part.lstrip("-(").rstrip(")") for part in query.lower().split()):
        if word in METHODS:
            return f"; method:{word} finds versions by their method"
        if word in TRAITS:
            return f"; trait:{word} finds LoRAs with this trait"
    return ""
