"""The connections of the proxy to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError

from adaptry.core.errors import Unavailable
from adaptry.core.http import plain_reason, pool_factory
from adaptry.integrations.serving.proxy.engine import ProxiedEngine

_READ_TIMEOUT = 3600.0  # seconds that the engine may take for the next part of an answer


class Upstream:
    """Sends requests to an engine."""

    def __init__(self, engine: ProxiedEngine, ca_bundle: str | None) -> None:
        self.engine = engine
        self._open_pool = pool_factory(engine.client.url, ca_bundle, None)

    @contextmanager
    def open(
        self, method: str, path: str, headers: HTTPHeaderDict, body: bytes | None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The engine's answer, which has not been read yet. Raises `Unavailable`. Each request has its own
        connection: an engine may close an idle one at any moment, and closing it ends the request in the
        engine."""
        with self._open_pool() as pool:
            answer = self._request(pool, method, path, headers, body)
            try:
                yield answer
            finally:
                answer.close()

    def _request(
        self, pool: urllib3.PoolManager, method: str, path: str, headers: HTTPHeaderDict, body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        url = self.engine.client.url
        try:
            return pool.request(
                method,
                f"{url}{path}",
                body=body,
                headers=headers | {"Connection": "close"},
                timeout=urllib3.Timeout(connect=5, read=_READ_TIMEOUT),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the engine at {url} does not answer ({plain_reason(error)})") from error
