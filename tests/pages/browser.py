"""Requests as a browser sends them, without a browser: cookies, `Accept`, and origin headers."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from adaptry_api.testing import RawResponse, Server

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
FORM = "application/x-www-form-urlencoded"


class Browser:
    """Keeps the session's cookie between requests."""

    def __init__(self, server: Server, token: str | None = "admin") -> None:
        self.server = server
        self.cookie: str | None = None
        if token is not None:
            secret = server.admin if token == "admin" else token
            self.post("/-/sign-in", {"token": secret, "next": "/"})

    def get(self, path: str, **headers: str) -> RawResponse:
        return self._send("GET", path, None, {"Accept": HTML, **headers})

    def post(self, path: str, fields: dict[str, str], **headers: str) -> RawResponse:
        own = {
            "Origin": self.server.url,
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": FORM,
            "Accept": HTML,
        }
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in own.items() if value}
        return self._send("POST", path, urlencode(fields).encode(), sent)

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> RawResponse:
        if self.cookie:
            headers = {**headers, "Cookie": self.cookie}
        answer = self.server.call(method, path, body, token=None, headers=headers)
        if set_cookie := answer.headers.get("Set-Cookie"):
            pair = set_cookie.partition(";")[0]
            self.cookie = pair if not pair.endswith(("=", '=""')) else None
        return answer


def links_of(answer: RawResponse) -> set[str]:
    """The addresses in a page: of links, forms, scripts, styles and images."""
    return set(re.findall(r'(?:href|src|action|hx-get)="([^"#]+)"', answer.body.decode()))
