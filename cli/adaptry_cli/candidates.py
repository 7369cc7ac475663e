"""Completions of a partly typed argument: adapters, versions and aliases after an `@`, bases, methods,
engines, fields of a query.

A server has two seconds to answer. If it does not, or if there is an error, nothing is completed and no
message is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import AdaptryError

if TYPE_CHECKING:
    from adaptry.registry.interface import Registry

_SECONDS = 2.0
_MAX_CANDIDATES = 50
_PAGE = 200


def refs(ctx: click.Context, typed: str) -> list[str]:
    """`acme/to` → `acme/tone`; `acme/tone@` → `acme/tone@prod`, `acme/tone@3`."""
    name, at, _ = typed.partition("@")
    if not at:
        return names(ctx, typed)
    return _beginning(typed, (f"{name}@{each}" for each in [*aliases_of(ctx, name), *numbers_of(ctx, name)]))


def names(ctx: click.Context, typed: str) -> list[str]:
    """Adapters whose names begin with the typed text."""

    def fetch(registry: Registry) -> list[str]:
        namespace = typed.partition("/")[0] if "/" in typed else None
        page = registry.adapters.list(namespace, None, _PAGE)
        found = [str(info.name) for info in page.items]
        if page.next is not None and typed:
            field = "name" if namespace else "namespace"
            found += [
                str(info.name) for info in registry.versions.search(f"{field}:{typed}*", None, _PAGE).items
            ]
        return found

    return _beginning(typed, _ask(ctx, fetch))


def namespaces(ctx: click.Context, typed: str) -> list[str]:
    return _beginning(typed, (name.partition("/")[0] for name in names(ctx, typed)))


def aliases(ctx: click.Context, typed: str) -> list[str]:
    """The aliases of the adapter that is named earlier on the command line."""
    return _beginning(typed, aliases_of(ctx, _named_adapter(ctx)))


def versions(ctx: click.Context, typed: str) -> list[str]:
    """The versions of the adapter that is named earlier on the command line."""
    return _beginning(typed, numbers_of(ctx, _named_adapter(ctx)))


def _named_adapter(ctx: click.Context) -> str:
    """The adapter named on an unfinished command line. After an option whose value is missing, click has not
    assigned the arguments yet.
    """
    from adaptry.core.refs import Ref

    named = ctx.params.get("ref") or ctx.params.get("name") or next(iter(ctx.args), "")
    return str(named.name) if isinstance(named, Ref) else str(named).partition("@")[0]


def aliases_of(ctx: click.Context, name: str) -> list[str]:
    """The aliases of an adapter."""

    def fetch(registry: Registry) -> list[str]:
        from adaptry.core.refs import AdapterName

        return [one.alias for one in registry.aliases.list(AdapterName.parse(name))]

    return _ask(ctx, fetch)


def numbers_of(ctx: click.Context, name: str) -> list[str]:
    """The numbers of an adapter's newest versions."""

    def fetch(registry: Registry) -> list[str]:
        from adaptry.core.refs import AdapterName

        page = registry.versions.list(AdapterName.parse(name), None, _MAX_CANDIDATES)
        return [str(version.number) for version in page.items]

    return _ask(ctx, fetch)


def bases(ctx: click.Context, typed: str) -> list[str]:
    """Names of registered bases that begin with the typed text."""

    def fetch(registry: Registry) -> list[str]:
        return [name for info in registry.bases.list(None, _PAGE).items for name in info.names]

    return _beginning(typed, _ask(ctx, fetch))


def methods(ctx: click.Context, typed: str) -> list[str]:
    """Methods of combining adapters."""
    from adaptry.compute.combining import COMBINE_METHODS

    return _beginning(typed, COMBINE_METHODS)


def engines(ctx: click.Context, typed: str) -> list[str]:
    """Engines that have rules."""
    from adaptry.checks.runtimes import ENGINES

    return _beginning(typed, ENGINES)


def query_terms(ctx: click.Context, typed: str) -> list[str]:
    """Fields of a query, even after a `-` or a parenthesis, and engines after `fits:`."""
    from adaptry.core.query_terms import DATE_FIELDS, DIGEST_FIELDS, HAS_FIELDS, NUMBER_FIELDS, TEXT_FIELDS

    body = typed.lstrip("-(")
    if body.startswith("fits:"):
        found = [f"fits:{engine}" for engine in engines(ctx, body.removeprefix("fits:"))]
    else:
        named = [f"{field}:" for field in (*TEXT_FIELDS, *DIGEST_FIELDS, "fits")]
        compared = [*NUMBER_FIELDS, *DATE_FIELDS, "metric.", "eval."]
        found = _beginning(body, [*named, *compared, *(f"has:{field}" for field in HAS_FIELDS)])
    return [typed.removesuffix(body) + word for word in found]


def search_orders(ctx: click.Context, typed: str) -> list[str]:
    """Keys by which a search is sorted."""
    from adaptry.registry.sort_keys import SEARCH_SORT_KEYS

    return _beginning(typed, (key.replace("NAME", "").replace("TASK.METRIC", "") for key in SEARCH_SORT_KEYS))


def _beginning(typed: str, words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word.startswith(typed)))[:_MAX_CANDIDATES]


def _ask(ctx: click.Context, fetch: Callable[[Registry], list[str]]) -> list[str]:
    """The registry's answer; empty if the registry takes too long or cannot be opened."""
    from adaptry.core.settings import is_server
    from adaptry.storage.connect import connect
    from adaptry_cli.connection import settings_for

    found: list[str] = []

    def look() -> None:
        with suppress(AdaptryError):
            found.extend(fetch(connect(settings.registry, settings, create_missing=False)))

    try:
        with ctx:
            settings = settings_for(ctx.params.get("where"))
    except AdaptryError:
        return []
    if not is_server(settings.registry or ""):
        look()
        return found
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return [] if thread.is_alive() else found
