"""The page of an adapter: live versions with their workers and moves, a list of all versions, and one version
in full.

The version in full is `?version=`, else the one in production, else the latest, else the newest. Its fit to
engines and its lineage are separate parts, which the page loads when they come into view, since they read
files and walk a graph.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.core.errors import CorruptData, NotFound, Withdrawn
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.aliases import PRODUCTION
from adaptry.registry.evidence import EvidenceInfo
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterInfo, AliasInfo, Event, Page, VersionDetail, VersionInfo
from adaptry.registry.rollouts import RolloutInfo
from adaptry.registry.workers import ResidentSummary
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.hub.addresses import Name
from adaptry_api.pages.adapter_addresses import alias_address, version_address
from adaptry_api.pages.card import MAX_CARD, render_card
from adaptry_api.pages.card_template import is_unfilled_template
from adaptry_api.pages.event_sentences import notable_events
from adaptry_api.pages.metric_charts import charts_over_steps, charts_over_versions, step_table
from adaptry_api.pages.module_groups import module_groups
from adaptry_api.pages.page_responses import render, wants_html
from adaptry_api.pages.page_routes import AdapterRoute, page_router
from adaptry_api.pages.promotion_page import rights_of
from adaptry_api.pages.snippets import snippets_for
from adaptry_api.pages.version_csv import csv_response

ROUTES = page_router(AdapterRoute)
_VERSIONS = 25
_EVENTS = 30
_EVIDENCE = 200
_LIVE = 8
"""Maximum number of aliases for which the page looks up the workers that have loaded their versions."""
_ALIASES = 100
"""Maximum number of aliases that the page lists."""
_WORKERS = 12
"""Maximum number of workers that the page names for a version."""


@dataclass(frozen=True, slots=True)
class _Card:
    """A README as HTML that is safe to show, and whether it is an unfilled template."""

    html: str
    is_template: bool


class AdapterPage(BaseModel):
    """An adapter, a page of its versions, and `shown`, one of them in full.

    `evidence` is the newest; if it `has_older_evidence`, the rest is in the REST interface. `residents`
    summarises the workers that have or had a version that an alias names, by its number. `history` are the
    newest events.
    """

    adapter: AdapterInfo
    aliases: tuple[AliasInfo, ...] = ()
    versions: Page[VersionInfo]
    shown: VersionDetail | None = None
    evidence: tuple[EvidenceInfo, ...] = ()
    has_older_evidence: bool = False
    residents: dict[int, ResidentSummary] = {}
    rollouts: tuple[RolloutInfo, ...] = ()
    history: tuple[Event, ...] = ()


@ROUTES.get("/{namespace}/{name}", response_model=None)
def show_adapter(
    request: Request,
    name: Name,
    registry: VisitorsRegistry,
    visitor: Visitor,
    version: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """An adapter and one of its versions."""
    if format == "csv":
        versions = registry.versions.list(name, cursor, 200).items
        return csv_response(f"{name.namespace}-{name.name}.csv", versions)
    page = _adapter_page(registry, name, version, cursor)
    if not wants_html(request):
        return render(request, "adapter.html", page, {})
    return render(request, "adapter.html", page, _names(request, registry, visitor, page))


def _adapter_page(
    registry: Registry, name: AdapterName, version: int | None, cursor: str | None
) -> AdapterPage:
    adapter = registry.adapters.get(name)
    aliases = registry.aliases.list(name)
    versions = registry.versions.list(name, cursor, _VERSIONS)
    number = version or _number_to_show(adapter, aliases, versions)
    if number is None:
        return AdapterPage(adapter=adapter, versions=versions, history=_history(registry, name))
    ref = Ref.parse(f"{name}@{number}")
    evidence = registry.evidence.list(ref, limit=_EVIDENCE)
    live = {alias.number for alias in aliases[:_LIVE]} | {number}
    return AdapterPage(
        adapter=adapter,
        aliases=aliases,
        versions=versions,
        shown=registry.versions.detail(ref),
        evidence=evidence.items,
        has_older_evidence=evidence.next is not None,
        residents={
            one: registry.workers.resident_summary(Ref.parse(f"{name}@{one}"), _WORKERS)
            for one in sorted(live)
        },
        rollouts=registry.rollouts.list(name),
        history=_history(registry, name),
    )


def _history(registry: Registry, name: AdapterName) -> tuple[Event, ...]:
    """The newest events of an adapter, without those that only accompany a push."""
    return notable_events(registry.adapters.history(name, None, _EVENTS).items)


def _number_to_show(
    adapter: AdapterInfo, aliases: tuple[AliasInfo, ...], versions: Page[VersionInfo]
) -> int | None:
    production = next((alias.number for alias in aliases if alias.alias == PRODUCTION), None)
    newest = versions.items[0].number if versions.items else None
    return production or adapter.latest or newest


def _names(request: Request, registry: Registry, visitor: Identity, page: AdapterPage) -> dict[str, object]:
    """Further values for the template."""
    shown, name = page.shown, page.adapter.name
    if shown is None:
        return {}
    aliases = _shown_aliases(page.aliases)
    movable = _movable(visitor, name, aliases)
    on_shown = [alias.alias for alias in page.aliases if alias.number == shown.version.number]
    selector = PRODUCTION if PRODUCTION in on_shown else (on_shown or [str(shown.version.number)])[0]
    host = f"{request.url.scheme}://{request.headers.get('host', '')}"
    return {
        "ref": f"{name}@{selector}",
        "part": version_address(name, shown.version.number),
        "alias_address": alias_address,
        "shown_aliases": aliases,
        "movable": movable,
        "may_act": bool(movable) or rights_of(visitor, name, PRODUCTION).approve,
        "card": _card(registry, shown),
        "snippets": snippets_for(host, name, selector, shown.version.base_name),
        "modules": module_groups(shown.spec),
        "version_charts": charts_over_versions(page.versions.items),
        "step_charts": charts_over_steps(page.evidence),
        "steps": step_table(page.evidence),
        "measured": [one for one in page.evidence if one.step is None],
        "running": next((one for one in page.rollouts if one.stage == "running"), None),
        "metric_names": list(dict.fromkeys(each for one in page.versions.items for each in one.metrics))[:3],
    }


def _shown_aliases(aliases: tuple[AliasInfo, ...]) -> tuple[AliasInfo, ...]:
    """The aliases to list, the usual one among them."""
    if len(aliases) <= _ALIASES:
        return aliases
    production = tuple(one for one in aliases if one.alias == PRODUCTION)
    others = (one for one in aliases if one.alias != PRODUCTION)
    return (*production, *islice(others, _ALIASES - len(production)))


def _movable(visitor: Identity, name: AdapterName, aliases: tuple[AliasInfo, ...]) -> frozenset[str]:
    """The aliases that the visitor may move, of those that exist and the usual one."""
    known = {PRODUCTION, *(one.alias for one in aliases)}
    return frozenset(alias for alias in known if rights_of(visitor, name, alias).move)


def _card(registry: Registry, shown: VersionDetail) -> _Card | None:
    """The README; None without one, or if the files are withheld."""
    paths = {entry.path: entry.size for entry in shown.manifest.files}
    if "README.md" not in paths:
        return None
    version = shown.version
    try:
        text = b"".join(registry.files.read(version.name, version.digest, "README.md"))
    except (NotFound, Withdrawn, CorruptData):  # the page says so
        return None
    images = f"/-/adapters/{version.name}/{version.number}/images/"
    html = render_card(text, {path: images + path for path in paths})
    return _Card(html, is_unfilled_template(text[:MAX_CARD]))
