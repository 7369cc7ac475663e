"""Paths of the REST API for adapters and bases, and idempotency keys."""

from __future__ import annotations

import secrets

from adaptry.core.digest import Digest
from adaptry.core.refs import Ref, format_selector, require_value
from adaptry.registry import protocol
from adaptry.registry.files import Owner
from adaptry.registry.http.connection import api_path


def owner_path(owner: Owner, *parts: str) -> str:
    if isinstance(owner, Digest):
        return api_path("bases", str(owner), *parts)
    require_value(owner)
    return api_path("adapters", owner.namespace, owner.name, *parts)


def version_path(ref: Ref, *parts: str) -> str:
    require_value(ref)
    return owner_path(ref.name, "versions", format_selector(ref.selector), *parts)


def sort_query(sort: str | None, reverse: bool) -> dict[str, object]:
    """The query parameters of a sort order; empty for the default."""
    return {"sort": sort, "reverse": True if reverse else None}


def idempotency_header() -> dict[str, str]:
    """A new idempotency key, which makes a call repeatable: the server executes it only once."""
    return {protocol.KEY_HEADER: secrets.token_hex(16)}
