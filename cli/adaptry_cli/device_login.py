"""Signing in with a browser (RFC 8628): shows a code, and waits until its user approves it."""

from __future__ import annotations

import time

from adaptry.core.errors import Unauthenticated, Unavailable
from adaptry_cli.oauth_client import error_of, post
from adaptry_cli.out import print_err

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_CLIENT = "adaptry"
_SHORTEST, _LONGEST = 1.0, 900.0


def device_token(server: str, ca_bundle: str | None, proxy: str | None) -> str:
    """A token of the user who approves this program within 15 minutes.

    Raises `Unauthenticated` if they deny it or the code expires, and `Unavailable`.
    """
    status, begun = post(f"{server}/oauth/device", {"client_id": _CLIENT}, ca_bundle, proxy)
    code, page = begun.get("device_code"), begun.get("verification_uri")
    if status != 200 or not isinstance(code, str):
        raise Unavailable(f"{server} cannot sign in a program now: {error_of(status, begun)}")
    print_err(f"open {page} in a browser, and approve the code {begun.get('user_code')}")
    interval = float(begun.get("interval", 5))
    end = time.monotonic() + min(float(begun.get("expires_in", _LONGEST)), _LONGEST)
    body = {"grant_type": _GRANT, "device_code": code, "client_id": _CLIENT}
    while time.monotonic() < end:
        time.sleep(max(_SHORTEST, interval))
        status, answer = post(f"{server}/oauth/token", body, ca_bundle, proxy)
        if isinstance(token := answer.get("access_token"), str):
            return token
        if answer.get("error") == "slow_down":
            interval += 5
        elif answer.get("error") != "authorization_pending" and status < 500:
            raise Unauthenticated(f"not signed in: {error_of(status, answer)}")
    raise Unauthenticated("not signed in: nobody approved the code in time; run the command again")
