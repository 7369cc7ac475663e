"""Finds the identity of a request's token.

A valid token and its principal's grants are cached for five seconds, so a revoked token or grant stops
working within five seconds in every process of the server. A token that is used in the last second before it
expires is looked up again in the background, so requests with it do not wait. If a later look-up finds an
equal identity, the existing object is kept, so answers cached for that object stay valid.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from anyio import to_thread

from adaptry.core.errors import Unauthenticated
from adaptry.core.identity import ANONYMOUS, Identity

BELIEVED_SECONDS = 5.0
_RENEWED_SECONDS = 1.0
"""How long before it expires a cached identity is looked up again."""
_MAX_ENTRIES = 4096


class TokenAuthenticator:
    """`identify` looks a token up and raises `Unauthenticated`; tokens are remembered by hash only."""

    def __init__(self, identify: Callable[[str], Identity], anonymous_read: bool) -> None:
        self._look_up = identify
        self._anonymous_read = anonymous_read
        self._known: dict[bytes, tuple[float, Identity]] = {}
        self._asking: dict[bytes, asyncio.Future[Identity]] = {}
        self._used: dict[int, datetime] = {}

    async def identify(self, authorization: str | None) -> Identity:
        """The identity of the token in this header. Raises `Unauthenticated`."""
        if (known := self.identify_from_cache(authorization)) is not None:
            return known
        if authorization is None:
            raise Unauthenticated("a token is needed: set ADAPTRY_TOKEN or run `adaptry login`")
        if (secret := _secret_in(authorization)) is None:
            raise Unauthenticated("send the token as `Authorization: Bearer adr_…`")
        return self.note_use(await asyncio.shield(self._pending_lookup(_key_of(secret), secret)))

    def identify_from_cache(self, authorization: str | None) -> Identity | None:
        """The identity of the token in this header if it is cached; otherwise None."""
        if authorization is None:
            return ANONYMOUS if self._anonymous_read else None
        if (secret := _secret_in(authorization)) is None:
            return None
        key = _key_of(secret)
        if self._ends_soon(key):
            self._pending_lookup(key, secret).add_done_callback(_note_result)
        return self._cached_identity(key)

    def token_key(self, authorization: str) -> bytes | None:
        """The hash by which the token in this header is remembered; None if the header has no token."""
        secret = _secret_in(authorization)
        return _key_of(secret) if secret else None

    def identify_key(self, key: bytes) -> Identity | None:
        """The identity of the token with this hash, if it is cached; None if it expires soon, because the
        next look-up needs the token itself.
        """
        return None if self._ends_soon(key) else self._cached_identity(key)

    def take_uses(self) -> dict[int, datetime]:
        """For each token that was used since the previous call, the time of its last use, by token id."""
        used, self._used = self._used, {}
        return dict(used)  # a request under way may still write to the other

    def note_use(self, identity: Identity) -> Identity:
        """Notes that the identity's token is in use; from any thread."""
        if identity.token is not None:
            self._used[identity.token] = datetime.now(UTC)
        return identity

    def _cached_identity(self, key: bytes) -> Identity | None:
        believed = self._known.get(key)
        if believed and believed[0] > time.monotonic():
            return self.note_use(believed[1])
        return None

    def _ends_soon(self, key: bytes) -> bool:
        """Whether a cached identity expires soon and is not being looked up."""
        if key in self._asking or (believed := self._known.get(key)) is None:
            return False
        return 0 < believed[0] - time.monotonic() < _RENEWED_SECONDS

    def _pending_lookup(self, key: bytes, secret: str) -> asyncio.Future[Identity]:
        """The look-up of this token that is under way. All requests with the token share it, even a thousand
        listeners.
        """
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key, secret))
        return asking

    async def _ask(self, key: bytes, secret: str) -> Identity:
        now, known, asking = time.monotonic(), self._known, self._asking
        try:
            identity = await to_thread.run_sync(self._look_up, secret)
        except Unauthenticated:
            known.pop(key, None)
            raise
        finally:
            asking.pop(key, None)
        believed = known.get(key)
        if believed and believed[1] == identity:
            identity = believed[1]  # keep the existing object: answers are cached for it
        known.pop(key, None)  # the order is that of expiry
        while len(known) >= _MAX_ENTRIES:
            del known[next(iter(known))]
        known[key] = (now + BELIEVED_SECONDS, identity)
        return identity

    def clear_cache(self) -> None:
        """Drops every cached identity after a right was taken away; results of look-ups under way are not
        cached.
        """
        self._known, self._asking = {}, {}

    def forget(self, principal: int | None) -> None:
        """Drops the cached identities of one principal, like `clear_cache`: hundreds of users may sign in
        within a minute, and others' requests need not look their tokens up again each time.
        """
        self._known = {key: one for key, one in self._known.items() if one[1].principal != principal}
        self._asking = {}


def _note_result(asking: asyncio.Future[Identity]) -> None:
    """Marks the error of a background look-up as handled: the next request looks the token up again and
    reports it.
    """
    if not asking.cancelled():
        asking.exception()


def _secret_in(authorization: str) -> str | None:
    """The token in an `Authorization` header, or None for a header without one."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def _key_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
