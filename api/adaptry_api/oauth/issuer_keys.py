"""The public keys of providers, fetched by OpenID Connect Discovery and kept for a while.

A provider changes its keys without notice: a token with an unknown key causes another fetch. Only a few
fetches per minute are allowed, because anyone can send a token with an invented key id. If a provider does
not respond, its last keys are used for an hour.

Sources: OpenID Connect Discovery 1.0 §4; RFC 7517 (JWK).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import field
from math import inf
from typing import TYPE_CHECKING, Any

from adaptry.core import strictjson
from adaptry.core.errors import AdaptryError, Invalid, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.outgoing_requests.connector import GuardedConnector

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, KeySet, RSAKey

FRESH_SECONDS = 600.0
USABLE_SECONDS = 3600.0
_WINDOW, _MAX_FETCHES = 60.0, 6
"""Seconds, and how many fetches of one provider begin in them."""
_LIMITS = strictjson.JsonLimits(size=1 << 18, nodes=5_000)
_MIN_RSA_BITS = 2048
_SLOW, _RETRY_DELAY = 1.0, 15.0
"""If a fetch failed after this many seconds, further callers fail immediately for a while, instead of waiting
one after another."""


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """The metadata of a provider. (`Any`: JSON.)"""

    issuer: str
    document: dict[str, Any]

    def endpoint(self, name: str) -> str:
        """The URL of an endpoint, such as `token_endpoint`. Raises `Unavailable` if it is not named."""
        found = self.document.get(name)
        if not isinstance(found, str):
            raise Unavailable(f"the provider {self.issuer} has no {name}")
        return found


@dataclass(slots=True)
class _Provider:
    lock: threading.Lock = field(default_factory=threading.Lock)
    metadata: ProviderMetadata | None = None
    keys: KeySet | None = None
    fetched_at: float = 0.0
    failed_at: float = -inf
    begun: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_FETCHES))


class IssuerKeys:
    """Keys and metadata of providers by their issuer URL. Safe to use from many threads.

    A fetch delays only callers that need the same provider.
    """

    def __init__(self, connector: GuardedConnector, clock: Callable[[], float] = time.monotonic) -> None:
        self._connector, self._clock = connector, clock
        self._providers: dict[str, _Provider] = {}
        self._lock = threading.Lock()

    def keys_of(self, issuer: str, key_id: str | None) -> KeySet:
        """The keys of a trusted provider; fetched again if none has the id.

        Raises `Unavailable` if they cannot be fetched, and no keys from the last hour are known.
        """
        provider = self._provider(issuer)
        with provider.lock:
            age = self._clock() - provider.fetched_at
            has_key = provider.keys is not None and _has(provider.keys, key_id)
            if provider.keys is None or age > FRESH_SECONDS or not has_key:
                self._refresh(issuer, provider, is_needed=provider.keys is None or age > USABLE_SECONDS)
            assert provider.keys is not None, "a failed first fetch raises"
            return provider.keys

    def metadata_of(self, issuer: str) -> ProviderMetadata:
        """The provider's metadata. Raises `Unavailable`."""
        self.keys_of(issuer, None)
        metadata = self._provider(issuer).metadata
        assert metadata is not None, "it is fetched with the keys"
        return metadata

    def _provider(self, issuer: str) -> _Provider:
        with self._lock:
            return self._providers.setdefault(issuer, _Provider())

    def _refresh(self, issuer: str, provider: _Provider, *, is_needed: bool) -> None:
        now = self._clock()
        if now - provider.failed_at < _RETRY_DELAY:
            if is_needed:
                raise Unavailable(f"cannot fetch the keys of {issuer} now; try again in a moment")
            return
        if len(provider.begun) == _MAX_FETCHES and now - provider.begun[0] < _WINDOW:
            if is_needed:
                raise Unavailable(f"the keys of {issuer} were requested too often; try again in a minute")
            return
        provider.begun.append(now)
        try:
            metadata = self._metadata(issuer)
            keys = self._keys(metadata)
        except AdaptryError as error:
            if (ended := self._clock()) - now > _SLOW:
                provider.failed_at = ended
            if is_needed:
                raise Unavailable(
                    f"cannot fetch the keys of {issuer}: {error.message}",
                    public_message=f"cannot fetch the keys of {issuer} now; try again later",
                ) from error
            return
        provider.metadata, provider.keys, provider.fetched_at = metadata, keys, now

    def _metadata(self, issuer: str) -> ProviderMetadata:
        document = self._document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise Invalid(f"its metadata is about another issuer: {str(document.get('issuer'))[:200]!a}")
        return ProviderMetadata(issuer, document)

    def _keys(self, metadata: ProviderMetadata) -> KeySet:
        from joserfc.jwk import KeySet  # 3 MB with cryptography, for servers with a provider

        document = self._document(metadata.endpoint("jwks_uri"))
        listed = document.get("keys")
        keys = [key for one in listed if (key := _verifying_key(one))] if isinstance(listed, list) else []
        if not keys:
            raise Invalid("it has no RSA or P-256 key that verifies signatures")
        return KeySet(list(keys))

    def _document(self, url: str) -> dict[str, Any]:
        answer = self._connector.request("GET", url, headers={"Accept": "application/json"})
        if answer.status != 200:
            raise Unavailable(f"{url} answered {answer.status}")
        document = strictjson.loads(answer.body, _LIMITS, url)
        if not isinstance(document, dict):
            raise Invalid(f"{url} is not a JSON object")
        return document


def _verifying_key(document: object) -> RSAKey | ECKey | None:
    """A public key for RS256 or ES256; None for any other, among them shared secrets, which are never keys of
    a provider.
    """
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    try:
        if document.get("kty") == "RSA":
            key = RSAKey.import_key(document)
            return key if key.public_key.key_size >= _MIN_RSA_BITS else None
        if document.get("kty") == "EC" and document.get("crv") == "P-256":
            return ECKey.import_key(document)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None


def _has(keys: KeySet, key_id: str | None) -> bool:
    return key_id is None or any(key.kid == key_id for key in keys.keys)
