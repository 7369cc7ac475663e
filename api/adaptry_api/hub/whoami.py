"""A token's owner in the Hub's terms: a user, named after a namespace, and organisations, the other
namespaces.
"""

from __future__ import annotations

from typing import Any

from adaptry.core.errors import InvalidRef
from adaptry.core.identity import Identity
from adaptry.core.refs import parse_namespace
from adaptry_api.auth_policy import Caller
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


@ROUTES.get("/api/whoami-v2")
def whoami(identity: Caller) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    own = own_namespace(identity)
    role = "write" if identity.may_somewhere("push") else "read"
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
    """The namespace for names without one: the token's own name if its grants include it, else the first
    namespace that its grants name.
    """
    if is_namespace(identity.name) and identity.has_namespace(identity.name):
        return identity.name
    return next(filter(is_namespace, identity.namespaces), identity.name)


def is_namespace(text: str) -> bool:
    """Whether the text is the name of a namespace, and not a pattern."""
    try:
        parse_namespace(text)
    except InvalidRef:
        return False
    return True
