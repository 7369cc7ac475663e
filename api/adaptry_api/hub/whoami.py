"""Who a token belongs to, in the Hub's words: a user, named as a namespace, and organisations, the others."""

from __future__ import annotations

from typing import Any

from adaptry.core.errors import InvalidRef
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry_api.auth_policy import Caller
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()
_ROLES = {"reader": "read", "worker": "read", "writer": "write", "admin": "write"}


@ROUTES.get("/api/whoami-v2")
def whoami(identity: Caller) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    own = own_namespace(identity)
    role = _ROLES[identity.role]
    return {
        "type": "user",
        "id": own,
        "name": own,
        "fullname": identity.name,
        "email": None,
        "emailVerified": True,
        "isPro": False,
        "canPay": False,
        "orgs": [
            {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": role}
            for name in identity.namespaces
            if name != own and is_namespace(name)
        ],
        "auth": {"type": "access_token", "accessToken": {"displayName": identity.name, "role": role}},
    }


def own_namespace(identity: Identity) -> str:
    """Where a name without a namespace belongs: under the token's own name if it holds there, else the first
    namespace that it holds by name."""
    if is_namespace(identity.name) and identity.has_namespace(identity.name):
        return identity.name
    return next(filter(is_namespace, identity.namespaces), identity.name)


def is_namespace(text: str) -> bool:
    """Whether adapters can be named so, rather than a pattern for namespaces."""
    try:
        AdapterName.parse(f"{text}/x")
    except InvalidRef:
        return False
    return True
