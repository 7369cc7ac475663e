"""The parts of a browser that sign-in needs: cookies for each host, single-step redirects, and forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3


@dataclass
class Page:
    """A response: its address, status, headers and text."""

    url: str
    status: int
    headers: urllib3.HTTPHeaderDict
    text: str

    @property
    def next(self) -> str:
        """The target of a redirect."""
        return urljoin(self.url, self.headers["Location"])


@dataclass
class Browser:
    """`cookies` are kept by host and port."""

    cookies: dict[str, dict[str, str]] = field(default_factory=dict)
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))
    visited: list[str] = field(default_factory=list)

    def get(self, url: str) -> Page:
        return self.send("GET", url)

    def post(self, url: str, form: dict[str, str], origin: str | None = None) -> Page:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send(
            "POST", url, urlencode(form).encode(), headers | ({"Origin": origin} if origin else {})
        )

    def send(
        self, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Page:
        self.visited.append(url)
        jar = self.cookies.setdefault(urlsplit(url).netloc, {})
        sent = dict(headers or {})
        if jar:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        answer = self.pool.request(method, url, body=body, headers=sent, redirect=False)
        for line in answer.headers.getlist("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    jar.pop(name, None)
                else:
                    jar[name] = morsel.value
        return Page(url, answer.status, answer.headers, answer.data.decode(errors="replace"))

    def close(self) -> None:
        self.pool.clear()


class Form(HTMLParser):
    """The first form of a page: its address, and its hidden fields."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.url, self.fields, self.names = page.url, dict[str, str](), set[str]()
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "form" and found.get("action"):
            self.url = urljoin(self.url, found["action"] or "")
        name = found.get("name")
        if tag in ("input", "button") and name:
            self.names.add(name)
            if found.get("type") == "hidden":
                self.fields[name] = found.get("value") or ""


def sign_in_at_provider(browser: Browser, server: str, next: str = "/acme", login: str = "ada") -> Page:
    """The callback's response, after all of ada's steps at the provider."""
    page = browser.get(f"{server}/-/sign-in/provider?next={next}")
    for _ in range(12):
        if page.status in (301, 302, 303, 307):
            if page.next.startswith(f"{server}/-/sign-in/provider/callback"):
                return browser.get(page.next)
            page = browser.get(page.next)
            continue
        form = Form(page)
        fields = dict(form.fields)
        if "login" in form.names:
            fields["login"] = login
        if "password" in form.names:
            fields["password"] = "correct horse"
        if "answer" in form.names:
            fields["answer"] = "accept"
        page = browser.post(form.url, fields)
    raise AssertionError(page.text[:2000])
