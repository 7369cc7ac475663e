"""`GET …/refs`: the branches and tags of an adapter.

Aliases are listed as branches, since they move, and versions as tags `v1`, `v2`…, since they do not.
"""

from __future__ import annotations

from typing import Any

from adaptry.core.refs import AdapterName
from adaptry.registry.pagination import iter_items
from adaptry.registry.versions import Versions
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()
_VERSIONS = 200


@ROUTES.get(f"{MODELS}/refs")
def list_all(name: Name, registry: CallersRegistry, include_prs: str = "") -> dict[str, Any]:
    """(`Any`: JSON.)"""
    named = registry.commits.references(name)
    body: dict[str, Any] = {
        "branches": [_ref(info.name, "heads", info.commit) for info in named if info.kind != "tag"],
        "converts": [],
        "tags": [_ref(info.name, "tags", info.commit) for info in named if info.kind == "tag"]
        + _versions(registry.versions, name),
    }
    return body | ({"pullRequests": []} if include_prs else {})


def _ref(name: str, kind: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _versions(versions: Versions, name: AdapterName) -> list[dict[str, str]]:
    listed = iter_items(lambda cursor: versions.list(name, cursor, _VERSIONS))
    return [_ref(f"v{version.number}", "tags", version.digest.short_id) for version in listed]
