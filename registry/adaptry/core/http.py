"""Connections to a server: its URL, the certificates that we trust, and the proxy.

The proxy comes from Adaptry's settings, else from the usual variables (HTTPS_PROXY, HTTP_PROXY and NO_PROXY)
and, on macOS and Windows, the system's settings. Certificates are verified with the system's authorities, or
with those of a bundle.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from adaptry.core.errors import Invalid

if TYPE_CHECKING:
    import urllib3

_ERROR_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
_SOCKETS = 16  # connections kept alive; further threads wait for a free one


def check_url(url: str) -> str:
    """`url` without a trailing slash. Raises `Invalid` if it is not an http or https URL."""
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
    """A pool of reusable connections to `url`. Raises `Invalid` if the certificates cannot be read."""
    return pool_factory(url, ca_bundle, proxy)()


def pool_factory(url: str, ca_bundle: str | None, proxy: str | None) -> Callable[[], urllib3.PoolManager]:
    """A function that opens pools like `open_pool`. Raises the errors of `open_pool` at once, not when a pool
    is opened.

    For requests that must not be repeated: each gets a separate pool, because a server may close an idle
    connection just when it is used again.
    """
    import urllib3  # a server that never sends requests does not need it

    # (`Any`: urllib3's keyword options have many types.)
    options: dict[str, Any] = {"maxsize": _SOCKETS, "block": True}
    if ca_bundle:
        options["ssl_context"] = tls_context(ca_bundle)
    proxy = proxy or _proxy_from_environment(url)
    if not proxy:
        return partial(urllib3.PoolManager, **options)
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    parts = urlsplit(proxy)
    if parts.username:
        options["proxy_headers"] = urllib3.make_headers(
            proxy_basic_auth=f"{parts.username}:{parts.password or ''}"
        )
    factory = partial(urllib3.ProxyManager, proxy, **options)
    try:
        factory()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise Invalid(f"cannot use the proxy {parts.hostname!r}: {error}") from error
    return factory


def tls_context(bundle: str) -> ssl.SSLContext:
    """TLS that also trusts the certificates in a file or folder. Raises `Invalid` if they cannot be read."""
    context = ssl.create_default_context()
    path = Path(bundle).expanduser()
    try:
        if path.is_dir():
            context.load_verify_locations(capath=str(path))
        else:
            context.load_verify_locations(cafile=str(path))
    except OSError as error:  # includes ssl.SSLError
        raise Invalid(
            f"cannot read certificates from {bundle}: {error.strerror or error}"
            " (ADAPTRY_CA_BUNDLE names a PEM file)"
        ) from error
    return context


def plain_reason(error: object) -> str:
    """The reason of a connection error of urllib3, without the names and addresses of its objects."""
    cause = error.args[-1] if isinstance(error, Exception) and error.args else None
    if isinstance(cause, OSError):  # its own text is that of Python's tuple: ('Connection aborted.', …)
        return cause.strerror or str(cause)
    text = str(error)
    reason = _ERROR_NUMBER.sub("", text.rpartition(": ")[2])
    return reason.removesuffix(")") if reason.count(")") > reason.count("(") else reason


def discard_response(response: urllib3.BaseHTTPResponse) -> None:
    """Closes the connection of a response that may not be read to its end, and frees its place in the pool.
    `close` alone does not, and a request waits until a place is free."""
    response.close()
    response.release_conn()


def is_cut_in_head(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the connection ended within the headers. http.client takes this for an empty body, since the
    headers that did arrive do not say where the body ends.
    """
    ends = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
    is_last = "close" in answer.headers.get("Connection", "").lower()
    return answer.version == 11 and answer.status not in (204, 304) and not ends and not is_last


def _proxy_from_environment(url: str) -> str | None:
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def close_idle(pools: urllib3.PoolManager) -> None:
    """Closes the connections that no request uses; the next request opens new ones.

    urllib3's own `clear` only drops the pools. Their connections then stay open until the garbage collector
    runs, because a pool that repeated a request is part of a reference cycle.
    """
    dropped = [pools.pools.get(key) for key in list(pools.pools.keys())]
    pools.clear()
    for pool in dropped:
        if pool is not None:
            pool.close()
