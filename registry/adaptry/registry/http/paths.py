"""Where a server has what belongs to an adapter or a base, and the key of a call that may be repeated."""

from __future__ import annotations

import secrets

from adaptry.core.digest import Digest
from adaptry.registry import protocol
from adaptry.registry.http.connection import path_of
from adaptry.registry.interface import Owner


def path_to(owner: Owner, *parts: str) -> str:
    if isinstance(owner, Digest):
        return path_of("bases", str(owner), *parts)
    return path_of("adapters", owner.namespace, owner.name, *parts)


def once_key() -> dict[str, str]:
    """A key of its own for a call, which may then be repeated: the server does it once."""
    return {protocol.KEY_HEADER: secrets.token_hex(16)}
