"""Finds the identity of a request's token.

A token that was good is believed for five seconds without asking the catalog again, so a revoked one
stops within that time in every process of the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

from anyio import to_thread

from adaptry.core.errors import Unauthenticated
from adaptry.core.identity import ANONYMOUS, Identity

BELIEVED_SECONDS = 5.0
_REMEMBERED = 4096


class TokenAuthenticator:
    """`identify` looks a token up and raises `Unauthenticated`; tokens are remembered by hash only."""

    def __init__(self, identify: Callable[[str], Identity], anonymous_read: bool) -> None:
        self._look_up = identify
        self._anonymous_read = anonymous_read
        self._known: dict[bytes, tuple[float, Identity]] = {}
        self._asking: dict[bytes, asyncio.Future[Identity]] = {}

    async def identify(self, authorization: str | None) -> Identity:
        """The identity of the token in this header. Raises `Unauthenticated`."""
        if authorization is None:
            if self._anonymous_read:
                return ANONYMOUS
            raise Unauthenticated("a token is needed: set ADAPTRY_TOKEN or run `adaptry login`")
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("send the token as `Authorization: Bearer adr_…`")
        secret = secret.strip()
        key = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        believed = self._known.get(key)
        if believed and believed[0] > time.monotonic():
            return believed[1]
        asking = self._asking.get(key)
        if asking is None:  # of a thousand who listen with one token, one asks
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key, secret))
        return await asyncio.shield(asking)

    async def _ask(self, key: bytes, secret: str) -> Identity:
        now, known, asking = time.monotonic(), self._known, self._asking
        try:
            identity = await to_thread.run_sync(self._look_up, secret)
        finally:
            asking.pop(key, None)
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = (now + BELIEVED_SECONDS, identity)
        return identity

    def clear_cache(self) -> None:
        """Forgets every cached identity, because a token was revoked; look-ups under way are not cached."""
        self._known, self._asking = {}, {}
