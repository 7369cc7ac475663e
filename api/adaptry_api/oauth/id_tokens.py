"""ID tokens: reads the provider that a token names, and verifies the token for this server.

The order matters: the claim `iss` is read without trust, only to choose the provider; then the signature is
verified with the keys of that provider alone, and then the claims. Only two algorithms are accepted,
regardless of the token's header and the provider's metadata.

Sources: OpenID Connect Core 1.0 §3.1.3.7; RFC 8725 (JWT best current practices).
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING, Any

from adaptry.core import strictjson
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

ALGORITHMS = ["RS256", "ES256"]
LEEWAY = 60
"""Seconds by which clocks may differ."""
MAX_LENGTH = 12 << 10
_LIMITS = strictjson.JsonLimits(size=MAX_LENGTH, depth=4, nodes=500)
_LATEST = 1 << 37  # a time in seconds before the year 6325
_TIMES = ("exp", "iat", "nbf")


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """The text of a token, and its unverified contents. (`Any`: JSON.)"""

    text: str
    algorithm: str
    key_id: str | None
    issuer: str


def read_unverified(text: str) -> UnverifiedToken:
    """Reads a token without verifying it. Raises `Invalid` unless it is a signed token with one of the
    accepted algorithms.
    """
    parts = text.split(".")
    if len(text) > MAX_LENGTH or len(parts) != 3:
        raise Invalid("not an ID token: a signed JWT in its compact form is needed")
    header, claims = _part(parts[0]), _part(parts[1])
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if algorithm not in ALGORITHMS:
        raise Invalid(f"the ID token is signed with {str(algorithm)[:20]!a}; RS256 and ES256 are accepted")
    if "crit" in header or not isinstance(key_id, str | None) or not isinstance(issuer, str):
        raise Invalid("the ID token has a header or an issuer that is not supported")
    return UnverifiedToken(text, algorithm, key_id, issuer)


def verify(token: UnverifiedToken, keys: KeySet, audience: str, now: float | None = None) -> dict[str, Any]:
    """Verifies that the token is for `audience` only and not expired, and returns its claims. (`Any`: JSON.)

    Raises `Invalid`, with the reason.
    """
    from joserfc import jwt
    from joserfc.errors import JoseError

    now = time.time() if now is None else now
    matching = [key for key in keys.keys if token.key_id is None or key.kid == token.key_id]
    if not matching or (token.key_id is None and len(keys.keys) > 1):
        raise Invalid("the ID token is signed with a key that its issuer does not have")
    try:
        claims = jwt.decode(token.text, matching[0], algorithms=ALGORITHMS).claims
    except (JoseError, ValueError, TypeError) as error:
        raise Invalid("the signature of the ID token is not valid") from error
    if claims.get("iss") != token.issuer:  # it was read from the same text, by another parser
        raise Invalid("the ID token names two issuers")
    if claims.get("aud") not in (audience, [audience]):
        raise Invalid(
            f"the ID token is for {str(claims.get('aud'))[:200]!a}, but it must be for {audience!a} only"
        )
    _check_times(claims, now)
    return claims


def _check_times(claims: dict[str, Any], now: float) -> None:
    for name in _TIMES:
        found = claims.get(name, 0 if name == "nbf" else None)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _LATEST:
            raise Invalid(f"the ID token has no valid claim {name}")
    if claims["exp"] <= now - LEEWAY:
        raise Invalid("the ID token has expired; request a new one")
    if max(claims["iat"], claims.get("nbf", 0)) > now + LEEWAY:
        raise Invalid("the ID token is not valid yet; compare this server's clock with its issuer's")


def _part(text: str) -> dict[str, Any]:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        document = strictjson.loads(data, _LIMITS, "a part of the ID token")
    except (binascii.Error, ValueError, Invalid) as error:
        raise Invalid("not an ID token: its parts are not JSON in base64url") from error
    if not isinstance(document, dict):
        raise Invalid("not an ID token: its parts are not JSON objects")
    return document
