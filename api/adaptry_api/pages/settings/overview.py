"""The first page of the settings: the visitor's rights, and the namespaces whose settings they may open."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from adaptry.core.identity import Identity
from adaptry.registry.interface import Registry
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.pages.page_responses import render
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.settings.navigation import has_settings, sections_for
from adaptry_api.pages.settings.subject import SETTINGS, SettingsSubject
from adaptry_api.route_threads import searches

ROUTES = page_router()
_MAX_VERSIONS = 200
_GLOB = re.compile(r"[*?\[]")


class OverviewPage(BaseModel):
    """The visitor's identity and a list of namespaces: those that the visitor's grants name, and those of the
    newest versions.
    """

    name: str
    role: str
    resources: tuple[str, ...]
    namespaces: tuple[str, ...] = ()


@ROUTES.get(SETTINGS, response_model=None)
@searches
def show_overview(
    request: Request, registry: VisitorsRegistry, identity: Visitor, namespace: str = ""
) -> Response:
    """The visitor's rights and namespaces; or, with the form's `namespace`, the way to its settings."""
    if namespace.strip():
        place = SettingsSubject(namespace.strip()[:96])
        groups = sections_for(identity, place)
        return RedirectResponse(groups[0].links[0][0] if groups else SETTINGS, 303)
    page = OverviewPage(
        name=identity.name,
        role=identity.role,
        resources=identity.namespaces,
        namespaces=tuple(_namespaces(registry, identity)),
    )
    names = {
        "section": None,
        "groups": sections_for(identity, SettingsSubject()),
        "first_of": lambda name: sections_for(identity, SettingsSubject(name))[0].links[0][0],
    }
    return render(request, "settings_overview.html", page, names)


def _namespaces(registry: Registry, identity: Identity) -> Iterable[str]:
    granted = {one.namespaces for one in identity.read_resources if not _GLOB.search(one.namespaces)}
    used = {one.name.namespace for one in registry.versions.search("", None, _MAX_VERSIONS).items}
    return sorted(name for name in granted | used if has_settings(identity, name))
