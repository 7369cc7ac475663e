"""Signing in with a browser (RFC 8628): shows a code, and waits until its user approves it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from adaptry.core.errors import Unauthenticated, Unavailable
from adaptry_cli.oauth_client import error_of, post
from adaptry_cli.output import print_err

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_CLIENT = "adaptry"
_MIN_INTERVAL, _MAX_INTERVAL = 1.0, 900.0
_NO_SUCH_ROUTE = (404, 405, 501)


class PendingSignIn(NamedTuple):
    """A sign-in that waits for its user, with the server's interval and lifetime in seconds."""

    device_code: str
    interval: float
    expires_in: float


def begin_sign_in(server: str, ca_bundle: str | None, proxy: str | None) -> PendingSignIn | None:
    """Prints the address and the code for the user; None if the server has no device flow.

    Raises `Unavailable`.
    """
    status, begun = post(f"{server}/oauth/device", {"client_id": _CLIENT}, ca_bundle, proxy)
    if status in _NO_SUCH_ROUTE:
        return None
    code, page, user_code = (begun.get(name) for name in ("device_code", "verification_uri", "user_code"))
    if status != 200 or not (isinstance(code, str) and isinstance(page, str) and isinstance(user_code, str)):
        raise Unavailable(f"{server} cannot sign in a program now: {error_of(status, begun)}")
    print_err(f"open {page} in a browser, and approve the code {user_code}")
    print_err("(to enter a token instead, run: adaptry login --with-token)")
    return PendingSignIn(code, _seconds(begun, "interval", 5), _seconds(begun, "expires_in", _MAX_INTERVAL))


def wait_for_token(server: str, begun: PendingSignIn, ca_bundle: str | None, proxy: str | None) -> str:
    """The token of the user who approves this program within 15 minutes.

    Raises `Unauthenticated` if they deny it or the code expires, and `Unavailable`.
    """
    interval, end = begun.interval, time.monotonic() + begun.expires_in
    body = {"grant_type": _GRANT, "device_code": begun.device_code, "client_id": _CLIENT}
    while time.monotonic() < end:
        time.sleep(max(_MIN_INTERVAL, interval))
        try:
            status, answer = post(f"{server}/oauth/token", body, ca_bundle, proxy)
        except Unavailable:  # perhaps for a moment; RFC 8628 §3.5
            continue
        if isinstance(token := answer.get("access_token"), str):
            return token
        if answer.get("error") == "slow_down":
            interval += 5
        elif answer.get("error") != "authorization_pending" and status < 500:
            raise Unauthenticated(f"not signed in: {error_of(status, answer)}")
    raise Unauthenticated("not signed in: the code was not approved in time; run the command again")


def _seconds(answer: Mapping[str, Any], name: str, default: float) -> float:
    """(`Any`: JSON.)"""
    found = answer.get(name, default)
    return min(float(found), _MAX_INTERVAL) if isinstance(found, int | float) and found > 0 else default
