"""Reaching a server: its address, whom we trust to be it, and the proxy in between.

A proxy comes from the settings, else from where other programs read it (HTTPS_PROXY, HTTP_PROXY and
NO_PROXY; on macOS and Windows the system's settings too). Certificates are checked against the system's, or
against a bundle.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from adaptry.core.errors import Invalid

_SOCKETS = 16  # kept alive at once; more threads than that wait for one another


def check_url(url: str) -> str:
    """`url` without a trailing slash. Raises `Invalid` where it is not an http(s) address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(f"not a server's address: {url[:200]!r} ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Invalid(f"not a server's address: {url[:200]!r} (write https://host or http://host:port)")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Invalid(
            "a server's address has no user, query or fragment; give the token as ADAPTRY_TOKEN or with "
            "`adaptry login`"
        )
    return url.rstrip("/")


def open_pool(url: str, ca_bundle: str | None, proxy: str | None) -> urllib3.PoolManager:
    """Connections to `url`, kept and used again. Raises `Invalid` for a bundle that cannot be read."""
    # (`Any`: urllib3 takes its options as keywords of many types.)
    options: dict[str, Any] = {"maxsize": _SOCKETS, "block": True}
    if ca_bundle:
        options["ssl_context"] = _trusting(ca_bundle)
    proxy = proxy or _proxy_from_environment(url)
    if not proxy:
        return urllib3.PoolManager(**options)
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    parts = urlsplit(proxy)
    if parts.username:
        options["proxy_headers"] = urllib3.make_headers(
            proxy_basic_auth=f"{parts.username}:{parts.password or ''}"
        )
    try:
        return urllib3.ProxyManager(proxy, **options)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise Invalid(f"cannot use the proxy {parts.hostname!r}: {error}") from error


def _trusting(bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    path = Path(bundle).expanduser()
    try:
        if path.is_dir():
            context.load_verify_locations(capath=str(path))
        else:
            context.load_verify_locations(cafile=str(path))
    except OSError as error:  # ssl.SSLError is one
        raise Invalid(
            f"cannot read certificates from {bundle}: {error.strerror or error}"
            " (ADAPTRY_CA_BUNDLE names a PEM file)"
        ) from error
    return context


def _proxy_from_environment(url: str) -> str | None:
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
