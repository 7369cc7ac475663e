"""A real server for tests: that of `serve`, on a free loopback port, in a thread, with clients for it.

`Server.registry` is our client; `Server.call` sends raw HTTP, for requests that our client never sends.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import urllib3

from adaptry.core.access.grants import Limit
from adaptry.core.errors import Unavailable
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.http import HttpRegistry
from adaptry.storage import tokens
from adaptry.storage.catalog import grants, principals
from adaptry.storage.connect import open_local
from adaptry_api.serve import bind, make_server, url_of
from adaptry_api.settings import ServerSettings

_TIMEOUT = 60.0  # seconds, for a busy machine
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An unprocessed response."""

    status: int
    headers: urllib3.HTTPHeaderDict
    body: bytes

    @property
    def json(self) -> Any:
        """(`Any`: JSON.)"""
        return json.loads(self.body)


class Server:
    """A running server on the folder `data`, and an admin token for it."""

    def __init__(self, url: str, data: Path, catalog: str | None = None) -> None:
        self.url = url
        self.data = data
        self.catalog = open_local(data, catalog=catalog).catalog
        self.admin = self.token("root", "admin", ("*",))
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)

    def token(
        self, name: str, role: str, namespaces: tuple[str, ...], expires_at: datetime | None = None
    ) -> str:
        """A token, created on the server's registry as the command line does."""
        return tokens.create_token(self.catalog, name, role, namespaces, expires_at)

    def token_of(self, identity: Identity) -> str:
        """A token for a principal with this identity: with its limit, or else limited to its grants."""
        limit = identity.limit or Limit(
            tuple(dict.fromkeys(one.permission for one in identity.grants)),
            tuple(dict.fromkeys(one.resource for one in identity.grants)),
        )
        with self.catalog.write() as tx:
            now, by = datetime.now(UTC), LOCAL.name
            principal = principals.find(tx, identity.name)
            principal = principal or principals.insert(tx, "user", identity.name, None, now, by)
            for grant in identity.grants:
                grants.add(tx, principal, grant, now, by)
            return tokens.issue(tx, principal, secrets.token_hex(8), limit, None, by).secret

    def registry(self, token: str | None = None) -> HttpRegistry:
        return HttpRegistry(self.url, token or self.admin)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "admin",
        headers: dict[str, str] | None = None,
    ) -> RawResponse:
        """One raw request; a body that is not bytes is sent as JSON; `token` None sends none."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {self.admin if token == 'admin' else token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        response = self._pool.request(method, self.url + path, body=body, headers=sent, redirect=False)
        return RawResponse(response.status, response.headers, response.data)

    def metrics_with(self, text: str, *, token: str | None = "admin") -> str:
        """`/metrics`, once it has the text: a request is counted after it was answered."""

        def read() -> str:
            return self.call("GET", "/metrics", token=token).body.decode()

        return until(read, lambda found: text in found)

    def close(self) -> None:
        self._pool.clear()
        self.catalog.close()


def until(read: Callable[[], Found], holds: Callable[[Found], bool]) -> Found:
    """The first result that holds. A server notes denied requests, for one, after it answered them."""
    end = time.monotonic() + _TIMEOUT
    while not holds(found := read()):
        assert time.monotonic() < end, found
    return found


def assert_problem(answer: RawResponse, status: int, code: str) -> None:
    """Checks that a response is an error in our one form, without internal details."""
    found = (answer.status, answer.headers.get("Content-Type"))
    assert found == (status, "application/problem+json"), (found, answer.body)
    problem = answer.json
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["request"] == answer.headers["Request-Id"]
    assert problem["detail"]
    assert b"Traceback" not in answer.body


@contextmanager
def running_server(
    settings: ServerSettings, wait_later: Callable[[Callable[[], None]], object] | None = None
) -> Iterator[Server]:
    """A server for `settings`, which stops when the block ends.

    It checks only ten times a second whether to stop. If the caller need not wait for that, `wait_later`
    receives the function that waits.
    """
    listening = bind("127.0.0.1", 0)
    server = Server(url_of("127.0.0.1", listening), settings.data, settings.catalog)
    uvicorn_server = make_server(settings)

    def run() -> None:
        with closing(listening):
            uvicorn_server.run(sockets=[listening])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        uvicorn_server.should_exit = True
        wait = partial(_join, thread)
        if wait_later:
            wait_later(wait)
        else:
            wait()


def _join(thread: threading.Thread) -> None:
    thread.join(timeout=_TIMEOUT)
    if thread.is_alive():
        raise Unavailable("the test server did not stop")
