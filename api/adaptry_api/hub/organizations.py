"""Routes about an organization: an overview, and its repositories."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from adaptry_api.auth_policy import Caller, CallersRegistry
from adaptry_api.hub.namespaces import Namespace, require_known, visible_adapters, with_sizes
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


@ROUTES.get("/api/organizations/{namespace}/overview")
def organisation(namespace: Namespace, identity: Caller, registry: CallersRegistry) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    models = visible_adapters(registry.adapters, namespace)
    require_known(identity.has_namespace(namespace) or bool(models), namespace)
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


@ROUTES.get("/api/organizations/{namespace}/settings/repositories")
def repositories(
    request: Request, namespace: Namespace, identity: Caller, registry: CallersRegistry
) -> list[dict[str, Any]]:
    """All repositories in one namespace that the caller may read. (`Any`: JSON.)"""
    found = visible_adapters(registry.adapters, namespace)
    require_known(identity.has_namespace(namespace) or bool(found), namespace)
    return with_sizes(request, found)
