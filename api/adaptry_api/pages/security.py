"""What protects pages in a browser: headers, the Host header, and the origin of requests that change things.

A page of another site must not run code here, frame a page, or act with a person's session. Nor may it read a
page by pointing its own name at this server's address (DNS rebinding), so names must be expected ones.
"""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

from adaptry.core.errors import Invalid, PermissionDenied
from adaptry_api.envelope import RawHeader, host_name, raw_headers

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Authorization, Cookie, Accept",
}
_REFERRER = b"referrer-policy"


def page_headers(referrer_policy: str) -> list[RawHeader]:
    """The headers of every response of a page, which replace those of other responses."""
    return [*raw_headers(_HEADERS), (_REFERRER, referrer_policy.encode())]


def require_known_host(request: Request, has_host_list: bool) -> None:
    """Raises `Invalid` for a host name that could be a stranger's.

    With a list of hosts (`--allow-host`), every request is checked against it already. Without one, a page
    answers to addresses and to names without a dot, which no public name server resolves.
    """
    if has_host_list:
        return
    name = host_name(request.headers.get("host", ""))
    if name and (_is_address(name.strip("[]")) or "." not in name or name.endswith(".localhost")):
        return
    raise Invalid(
        f"pages are not shown under the host name {name[:100]!a}: start the server with --allow-host and that"
        " name, or open its IP address"
    )


def require_same_origin(request: Request) -> None:
    """Raises `PermissionDenied` unless the request comes from a page of this server.

    Browsers state where a request comes from in `Origin`, and over TLS and on loopback in `Sec-Fetch-Site`
    too. A session's cookie is `SameSite=Lax`, so other sites' requests do not carry it in the first place.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if (site is None and origin is None) or site not in (None, "same-origin") or origin not in (None, own):
        raise PermissionDenied("this form was sent from another site; open the page here and send it again")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
