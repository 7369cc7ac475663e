"""`Idempotency-Key`: lets a client repeat a request that creates something after its response was lost.

For a day, the same request with the same key gets the same response, marked `Idempotent-Replay: true`;
another request with that key is a conflict.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.registry import protocol
from adaptry.registry.interface import Registry
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry_api.auth_policy import Caller, app_state_of

Key = Annotated[str | None, Header(alias=protocol.KEY_HEADER, min_length=1, max_length=255)]


async def _registry(request: Request, response: Response, identity: Caller, key: Key = None) -> Registry:
    """The registry, acting for the caller; with a key, a repeated call has no further effect."""
    if key is None:
        return app_state_of(request).registry(identity)
    return registry_once(request, response, identity, key, await request.body())


def registry_once(
    request: Request, response: Response, identity: Identity, key: str | None, body: bytes
) -> Registry:
    """The same for a request with this body."""
    if key is None:
        return app_state_of(request).registry(identity)

    def tell() -> None:
        response.headers[protocol.REPLAY_HEADER] = "true"

    # The expected generation (`If-Match`) is part of the request.
    seen = f"{request.headers.get('if-match')} {request.headers.get('if-none-match')}"
    asked = hashlib.sha256(f"{request.method} {request.url.path} {seen}\n".encode())
    asked.update(body)
    return app_state_of(request).registry(identity, IdempotencyKey(key, Digest(asked.hexdigest()), tell))


IdempotentRegistry = Annotated[Registry, Depends(_registry)]
"""For routes that create."""
