"""Namespaces as the Hub's clients look at them: users, organisations, and what repositories one has.

A namespace is shown to whoever holds it or may read an adapter in it; for everyone else there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import unquote

from anyio import to_thread
from fastapi import Depends, Request

from adaptry.registry.interface import Registry
from adaptry.registry.paging import iter_items
from adaptry.registry.records import AdapterInfo
from adaptry.storage.catalog.files import stored_bytes
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of
from adaptry_api.errors import HttpProblem
from adaptry_api.hub.name_case import canonical_namespace
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.tree_entries import format_time
from adaptry_api.hub.whoami import is_namespace, own_namespace

ROUTES = hub_router()
_PAGE = 200


async def _namespace(request: Request, identity: Caller) -> str:
    asked = unquote(request.path_params["namespace"])
    return await to_thread.run_sync(canonical_namespace, app_state_of(request), identity, asked)


Namespace = Annotated[str, Depends(_namespace)]


@ROUTES.get("/api/users/{namespace}/overview")
def user(namespace: Namespace, identity: Caller, registry: CallersRegistry) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    models = _visible(registry, namespace)
    own = own_namespace(identity)
    if namespace != own:
        _require_known(identity.has_namespace(namespace) or bool(models), namespace)
    orgs = [name for name in identity.namespaces if name != own and is_namespace(name)]
    return {
        "user": namespace,
        "fullname": identity.name if namespace == own else namespace,
        "type": "user",
        "avatarUrl": "",
        "isPro": False,
        "numModels": len(models),
        "numDatasets": 0,
        "numSpaces": 0,
        "orgs": [{"name": name, "fullname": name, "avatarUrl": ""} for name in orgs]
        if namespace == own
        else [],
    }


@ROUTES.get("/api/organizations/{namespace}/overview")
def organisation(namespace: Namespace, identity: Caller, registry: CallersRegistry) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    models = _visible(registry, namespace)
    _require_known(identity.has_namespace(namespace) or bool(models), namespace)
    return {
        "name": namespace,
        "fullname": namespace,
        "type": "org",
        "avatarUrl": "",
        "isVerified": False,
        "numModels": len(models),
        "numDatasets": 0,
        "numSpaces": 0,
    }


@ROUTES.get("/api/settings/repositories")
def own_repositories(request: Request, identity: Caller, registry: CallersRegistry) -> list[dict[str, Any]]:
    """Everything in the namespaces that the caller holds. (`Any`: JSON.)"""
    held = [info for info in _all(registry, None) if identity.has_namespace(info.name.namespace)]
    return _with_sizes(request, held)


@ROUTES.get("/api/organizations/{namespace}/settings/repositories")
def repositories(
    request: Request, namespace: Namespace, identity: Caller, registry: CallersRegistry
) -> list[dict[str, Any]]:
    """Everything in one namespace that the caller may read. (`Any`: JSON.)"""
    found = _visible(registry, namespace)
    _require_known(identity.has_namespace(namespace) or bool(found), namespace)
    return _with_sizes(request, found)


def _with_sizes(request: Request, infos: list[AdapterInfo]) -> list[dict[str, Any]]:
    with app_state_of(request).catalog.read() as tx:
        sizes = stored_bytes(tx, [info.name for info in infos])
    total = sum(sizes.values())
    return [
        {
            "id": str(info.name),
            "type": "model",
            "updatedAt": format_time(info.updated_at),
            "visibility": info.visibility,
            "storage": sizes.get(info.name, 0),
            "storagePercent": 100 * sizes.get(info.name, 0) / total if total else 0,
        }
        for info in infos
    ]


def _visible(registry: Registry, namespace: str) -> list[AdapterInfo]:
    return list(_all(registry, namespace))


def _all(registry: Registry, namespace: str | None) -> Iterator[AdapterInfo]:
    return iter_items(lambda cursor: registry.adapters(namespace, cursor, _PAGE))


def _require_known(is_known: bool, namespace: str) -> None:
    """Raises `HttpProblem` (404), without the code that clients take for a missing repository."""
    if not is_known:
        raise HttpProblem(404, f"this server has no namespace {namespace[:96]!a} that your token may see")
