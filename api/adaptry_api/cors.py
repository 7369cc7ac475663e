"""Cross-origin requests (CORS): which web pages may call this server from a browser.

Off unless the operator names origins. A page of a named origin may send any method and header, including a
token, and read the headers that our clients and those of the Hub need. Its cookies are not used:
`Access-Control-Allow-Credentials` is never sent, so a page can do only what its token allows. This is plain
ASGI around everything else, so that errors have the headers too.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "ETag",
    "Link",
    "Location",
    "Request-Id",
    "Retry-After",
    "Upload-Offset",
    "WWW-Authenticate",
    "X-Error-Code",
    "X-Error-Message",
    "X-HF-Warning",
    "X-Linked-Etag",
    "X-Linked-Size",
    "X-Repo-Commit",
    "X-Request-Id",
    "X-Total-Count",
    "X-Xet-Access-Token",
    "X-Xet-Cas-Url",
    "X-Xet-Token-Expiration",
)
_REMEMBERED_SECONDS = 600


class Cors:
    """Answers preflight requests from `origins`, and lets their pages read every other answer."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_headers = Headers(scope=scope)
        origin = request_headers.get("origin")
        allowed = origin if origin in self._origins else None

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if allowed:
                    headers["Access-Control-Allow-Origin"] = allowed
                    headers["Access-Control-Expose-Headers"] = ", ".join(_EXPOSED)
            await send(message)

        if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in request_headers:
            await _preflight(request_headers)(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)


def _preflight(request_headers: Headers) -> Response:
    """Answers a preflight request. Any header may be sent: this is safe, since only a token gives rights, and
    the page must know the token.
    """
    headers = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Max-Age": str(_REMEMBERED_SECONDS),
    }
    if named := request_headers.get("access-control-request-headers"):
        headers["Access-Control-Allow-Headers"] = named
    return Response(status_code=204, headers=headers)
