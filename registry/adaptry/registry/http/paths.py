"""Where a server has what belongs to an adapter or a base, and the key of a call that may be repeated."""

from __future__ import annotations

import secrets

from adaptry.core.digest import Digest
from adaptry.core.refs import Ref, format_selector
from adaptry.registry import protocol
from adaptry.registry.files import Owner
from adaptry.registry.http.connection import api_path


def owner_path(owner: Owner, *parts: str) -> str:
    if isinstance(owner, Digest):
        return api_path("bases", str(owner), *parts)
    return api_path("adapters", owner.namespace, owner.name, *parts)


def version_path(ref: Ref, *parts: str) -> str:
    return owner_path(ref.name, "versions", format_selector(ref.selector), *parts)


def idempotency_header() -> dict[str, str]:
    """A key of its own for a call, which may then be repeated: the server does it once."""
    return {protocol.KEY_HEADER: secrets.token_hex(16)}
