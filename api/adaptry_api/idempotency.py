"""`Idempotency-Key`: lets a client repeat a request that creates something after its response was lost.

For a day, the same request with the same key gets the same response, marked `Idempotent-Replay: true`;
another request with that key is a conflict.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from starlette.datastructures import MutableHeaders

from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.registry import protocol
from adaptry.registry.interface import Registry
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry_api.auth_policy import Caller, app_state_of
from adaptry_api.errors import HttpProblem

_MAX_LENGTH = 255
Key = Annotated[str | None, Header(alias=protocol.KEY_HEADER, min_length=1, max_length=_MAX_LENGTH)]


def key_of(request: Request) -> str | None:
    """The key of a request that FastAPI has not parsed. Raises `HttpProblem` (422) as FastAPI would."""
    key = request.headers.get(protocol.KEY_HEADER)
    if key is not None and not 1 <= len(key) <= _MAX_LENGTH:
        raise HttpProblem(
            422,
            f"cannot read the request: header.{protocol.KEY_HEADER}: expected 1 to {_MAX_LENGTH} characters",
        )
    return key


async def _registry(request: Request, response: Response, identity: Caller, key: Key = None) -> Registry:
    """The registry, acting for the caller; with a key, a repeated call has no further effect."""
    if key is None:
        return app_state_of(request).registry(identity)
    return registry_once(request, response.headers, identity, key, await request.body())


def registry_once(
    request: Request, headers: MutableHeaders, identity: Identity, key: str | None, body: bytes
) -> Registry:
    """Like `_registry`, for a request with this body; a repeated call is marked in the response's
    `headers`.
    """
    if key is None:
        return app_state_of(request).registry(identity)

    def tell() -> None:
        headers[protocol.REPLAY_HEADER] = "true"

    # The expected generation (`If-Match`) is part of the request.
    seen = f"{request.headers.get('if-match')} {request.headers.get('if-none-match')}"
    fingerprint = hashlib.sha256(f"{request.method} {request.url.path} {seen}\n".encode())
    fingerprint.update(body)
    return app_state_of(request).registry(
        identity, IdempotencyKey(key, Digest(fingerprint.hexdigest()), tell)
    )


IdempotentRegistry = Annotated[Registry, Depends(_registry)]
"""For routes that create."""
