"""`OpenIdProvider`: the identity provider, of which this server is a client.

Sources: OpenID Connect Core 1.0 §3.1 (code flow) and §12 (refresh); RFC 7636 (PKCE); RFC 9207 (the issuer in
the answer); RFC 6749 §2.3.1 (a client's password).
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from adaptry.core import strictjson
from adaptry.core.errors import AdaptryError, Invalid, Unauthenticated, Unavailable
from adaptry.core.outgoing_requests.connector import GuardedConnector, OutgoingResponse
from adaptry.storage.sign_ins import ConfirmedUser
from adaptry_api.oauth import id_tokens
from adaptry_api.oauth.issuer_keys import IssuerKeys
from adaptry_api.settings import SsoSettings

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_LIMITS = strictjson.JsonLimits(size=1 << 18, nodes=20_000)
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_MAX_GROUPS = 2000
_SLOW, _PAUSE = 1.0, 15.0
"""If a code was not exchanged after this many seconds, further sign-ins fail immediately for a while. Only a
few wait for the provider at once, so all others would wait for those before them."""
Claims = Mapping[str, Any]
"""(`Any`: JSON.)"""


class ConfirmationUnavailable(Unavailable):
    """The user could be neither confirmed nor rejected. `refresh_token` (sealed) is for the next try, if the
    provider replaced the old one.
    """

    def __init__(
        self, message: str, refresh_token: str | None = None, public_message: str | None = None
    ) -> None:
        super().__init__(message, public_message=public_message)
        self.refresh_token = refresh_token


class OpenIdProvider:
    """Exchanges codes and refresh tokens for users. `sealing_key` (32 bytes) encrypts stored refresh tokens.

    All methods raise `Unavailable` if the provider does not answer.
    """

    def __init__(
        self,
        settings: SsoSettings,
        connector: GuardedConnector,
        keys: IssuerKeys,
        sealing_key: Callable[[], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._connector, self._keys = settings, connector, keys
        self._sealing_key, self._clock = sealing_key, clock
        self._failed_at = -inf

    @property
    def issuer(self) -> str:
        return self._settings.issuer

    def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """The URL at which a browser signs in."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._settings.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        endpoint = self._keys.metadata_of(self.issuer).endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def user_of_code(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> ConfirmedUser:
        """The user who got this code. Raises `Unauthenticated` for a code that the provider does not accept,
        and for an ID token that is not valid, or of another sign-in.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        answer = self._answer_to_code(form)
        claims = self._verified(answer)
        if claims.get("nonce") != nonce:
            raise Unauthenticated("the identity provider's answer belongs to another sign-in; sign in again")
        return self._user(claims, answer, None)

    def user_of_refresh(self, sealed: str, subject: str) -> ConfirmedUser:
        """The user's current data at the provider.

        Raises `Unauthenticated` if the provider no longer confirms the user, and `ConfirmationUnavailable` or
        `Unavailable` if it gave no answer.
        """
        from cryptography.fernet import InvalidToken

        try:
            refresh_token = self._fernet().decrypt(sealed.encode()).decode()
        except InvalidToken as error:  # the server's secret was replaced
            raise ConfirmationUnavailable("the stored refresh token cannot be opened") from error
        answer = self._token_answer({"grant_type": "refresh_token", "refresh_token": refresh_token})
        newest = _refresh_token(answer) or refresh_token
        try:
            claims = self._verified(answer) if "id_token" in answer else self._user_info(answer)
            user = self._user(claims, answer, refresh_token)
        except AdaptryError as error:
            raise ConfirmationUnavailable(error.message, self._sealed(newest)) from error
        if user.subject != subject:
            raise Unauthenticated(
                "the identity provider returned a different user than the one that signed in"
            )
        return user

    def _answer_to_code(self, form: Mapping[str, str]) -> dict[str, Any]:
        begun = self._clock()
        if begun - self._failed_at < _PAUSE:
            raise Unavailable("the identity provider does not answer now; sign in again in a moment")
        try:
            return self._token_answer(form)
        except Unavailable:
            if (ended := self._clock()) - begun > _SLOW:
                self._failed_at = ended
            raise

    def _token_answer(self, form: Mapping[str, str]) -> dict[str, Any]:
        metadata = self._keys.metadata_of(self.issuer)
        headers, sent = dict(_FORM), dict(form)
        identifier, secret = self._settings.client_id, self._settings.client_secret
        methods = metadata.document.get("token_endpoint_auth_methods_supported")
        if secret is not None and (not isinstance(methods, list) or "client_secret_basic" in methods):
            pair = f"{quote(identifier, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            sent |= {"client_id": identifier} | ({"client_secret": secret} if secret is not None else {})
        url = metadata.endpoint("token_endpoint")
        answer = self._connector.request("POST", url, body=urlencode(sent).encode(), headers=headers)
        found = _document(answer)
        if answer.status == 200:
            return found
        if found.get("error") == "invalid_grant":
            raise Unauthenticated("the identity provider no longer accepts this sign-in; sign in again")
        is_down = answer.status >= 500 or answer.status == 429
        raise (Unavailable if is_down else ConfirmationUnavailable)(
            f"the identity provider returned status {answer.status} ({str(found.get('error'))[:80]})",
            public_message="the identity provider refused this server; the server's log has the details",
        )

    def _verified(self, answer: Mapping[str, Any]) -> Claims:
        text = answer.get("id_token")
        if not isinstance(text, str):
            raise Unauthenticated("the identity provider sent no ID token")
        try:
            token = id_tokens.read_unverified(text)
            if token.issuer != self.issuer:
                raise Invalid("the ID token is of another issuer")
            keys = self._keys.keys_of(self.issuer, token.key_id)
            return id_tokens.verify(token, keys, self._settings.client_id)
        except Invalid as error:
            raise Unauthenticated(f"the identity provider's answer is not valid: {error.message}") from error

    def _user_info(self, answer: Mapping[str, Any]) -> Claims:
        """The claims of the user whose access token is in the answer."""
        url = self._keys.metadata_of(self.issuer).endpoint("userinfo_endpoint")
        headers = {"Authorization": f"Bearer {answer.get('access_token')}", "Accept": "application/json"}
        found = self._connector.request("GET", url, headers=headers)
        if found.status in (401, 403):
            raise Unauthenticated("the identity provider no longer confirms the user")
        if found.status != 200:
            raise Unavailable(f"the identity provider returned status {found.status} for a user")
        return _document(found)

    def _user(self, claims: Claims, answer: Mapping[str, Any], old_token: str | None) -> ConfirmedUser:
        subject, name = claims.get("sub"), self._settings.groups_claim
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise Unauthenticated("the identity provider's answer names no user")
        if name not in claims and "userinfo_endpoint" in self._keys.metadata_of(self.issuer).document:
            info = self._user_info(answer)
            if info.get("sub") != subject:
                raise Unauthenticated(
                    "the identity provider returned a different user than the one that signed in"
                )
            claims = {**info, **claims}
        groups = claims.get(name)
        listed = groups if isinstance(groups, list) else [groups]
        refresh_token = _refresh_token(answer) or old_token
        proposals = (claims.get("preferred_username"), claims.get("email"), subject)
        return ConfirmedUser(
            self.issuer,
            subject,
            tuple(one for one in proposals if isinstance(one, str)),
            frozenset(one for one in listed[:_MAX_GROUPS] if isinstance(one, str)),
            self._sealed(refresh_token) if refresh_token else None,
        )

    def _sealed(self, refresh_token: str) -> str:
        return self._fernet().encrypt(refresh_token.encode()).decode()

    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet  # 3 MB, for servers with a provider

        return Fernet(base64.urlsafe_b64encode(self._sealing_key()))


def _document(answer: OutgoingResponse) -> dict[str, Any]:
    try:
        found = strictjson.loads(answer.body, _LIMITS, "the identity provider's answer")
    except Invalid as error:
        raise Unavailable(f"the identity provider returned status {answer.status} without JSON") from error
    if not isinstance(found, dict):
        raise Unavailable("the identity provider's answer is not a JSON object")
    return found


def _refresh_token(answer: Mapping[str, Any]) -> str | None:
    found = answer.get("refresh_token")
    return found if isinstance(found, str) and found else None
