"""Routes about a user: an overview, and the repositories in the caller's own namespaces."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from adaptry_api.auth_policy import Caller, CallersRegistry
from adaptry_api.hub.namespaces import Namespace, iter_adapters, require_known, visible_adapters, with_sizes
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.whoami import is_namespace, own_namespace

ROUTES = hub_router()


@ROUTES.get("/api/users/{namespace}/overview")
def user(namespace: Namespace, identity: Caller, registry: CallersRegistry) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    models = visible_adapters(registry.adapters, namespace)
    own = own_namespace(identity)
    if namespace != own:
        require_known(identity.has_namespace(namespace) or bool(models), namespace)
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


@ROUTES.get("/api/settings/repositories")
def own_repositories(request: Request, identity: Caller, registry: CallersRegistry) -> list[dict[str, Any]]:
    """All repositories in the caller's namespaces. (`Any`: JSON.)"""
    held = [
        info for info in iter_adapters(registry.adapters, None) if identity.has_namespace(info.name.namespace)
    ]
    return with_sizes(request, held)
