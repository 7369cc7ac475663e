"""Credentials for an OCI registry: stored by `docker login`, `oras login` or `skopeo login`, and its tokens.

Credential helpers are programs, and are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import urllib3

from adaptry.compute.exporting.oci.reference import OciReference
from adaptry.core.errors import Unauthenticated, Unavailable

_SECONDS = urllib3.Timeout(connect=10, read=60)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


def stored_login(config: Path | None, host: str) -> str | None:
    """`user:password` in base64, from a Docker config, for `host`; None if the config has none for it."""
    if config is None:
        return None
    try:
        kept = json.loads(config.read_bytes())["auths"][host]["auth"]
        base64.b64decode(kept, validate=True)
    except (OSError, ValueError, LookupError, TypeError, binascii.Error):
        return None
    return str(kept)


def authorization_header(
    pool: urllib3.PoolManager, challenge: str, login: str | None, place: OciReference
) -> str:
    """The header for a registry's `WWW-Authenticate`. A login is sent unencrypted only if the registry's own
    connection is. Raises `Unauthenticated`.
    """
    scheme, _, rest = challenge.partition(" ")
    words = dict(_PARAMETER.findall(rest))
    if scheme.lower() == "basic" and login:
        return f"Basic {login}"
    if scheme.lower() == "bearer" and words.get("realm", "").startswith(("https://", *_plain(place))):
        return f"Bearer {_token(pool, words, login, place.host)}"
    raise Unauthenticated(
        f"{place.host} requires a login, but none is stored: run `docker login {place.host}` (or oras,"
        " or skopeo)"
    )


def _plain(place: OciReference) -> tuple[str, ...]:
    return ("http://",) if place.is_plain else ()


def _token(pool: urllib3.PoolManager, words: Mapping[str, str], login: str | None, host: str) -> str:
    parameters = {key: words[key] for key in ("service", "scope") if key in words}
    headers = {"Authorization": f"Basic {login}"} if login else {}
    address = f"{words['realm']}?{urlencode(parameters)}"
    try:
        answer = pool.request("GET", address, headers=headers, timeout=_SECONDS, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise Unavailable(f"the token server {words['realm']} of {host} does not answer ({error})") from error
    try:
        response = json.loads(answer.data)
        return str(response.get("token") or response["access_token"])
    except (ValueError, LookupError, AttributeError):
        raise Unauthenticated(
            f"{host} returned no token ({answer.status}); is its login still valid? `docker login {host}`"
            " renews it"
        ) from None
