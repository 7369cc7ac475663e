"""The HTTP client for engines: no redirects, no retries, and a connection for each request.

An engine that does not answer raises `Unavailable`. If it accepted the request, that is an `EngineTimeout` or
an `EngineDisconnect`. Each engine's own module interprets the responses.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.http import check_url, is_cut_in_head, plain_reason, pool_factory
from adaptry.core.lazy_dataclass import dataclass

_LIMITS = strictjson.JsonLimits(size=8 << 20, depth=16, nodes=500_000)
_MAX_MESSAGE = 600
_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class EngineResponse:
    """An engine's HTTP response."""

    status: int
    text: str

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    @property
    def json(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty if it is not one. (`Any`: JSON.)"""
        try:
            found = strictjson.loads(self.text.encode(), _LIMITS, "the engine's answer")
        except Invalid:
            return {}
        return found if isinstance(found, dict) else {}

    def json_list(self, key: str) -> tuple[Mapping[str, Any], ...]:
        """The objects in the list at `key`. (`Any`: JSON.)"""
        items = self.json.get(key)
        return tuple(item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()

    @property
    def error_message(self) -> str:
        """The error message, on one line."""
        error = self.json.get("error")
        configured = error.get("message") if isinstance(error, dict) else error
        for key in ("error_message", "message", "detail"):
            configured = configured or self.json.get(key)
        return " ".join(str(configured or self.text).split())[:_MAX_MESSAGE] or f"status {self.status}"


class EngineTimeout(Unavailable):
    """The engine accepted a request but did not answer it within `seconds`. It may still carry it out."""

    def __init__(self, message: str, *, seconds: float = _TIMEOUT) -> None:
        super().__init__(message)
        self.seconds = seconds


class EngineDisconnect(Unavailable):
    """The engine accepted a request, and the connection broke before its answer: it may have ended."""


class EngineClient:
    """Sends requests to the engine at `url`, with its API key if it has one."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        ca_bundle: str | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        """`timeout`: how many seconds the engine has to answer a `POST`. Raises `Invalid` if `url` is
        malformed."""
        self.url: str = check_url(url)
        self.timeout = timeout
        self.slowest_answer = 0.0
        """How many seconds the engine needed at most to answer a `POST` that it did answer."""
        self._limit = math.inf
        self._open_pool = pool_factory(self.url, ca_bundle, None)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, timeout: float = 10.0) -> EngineResponse:
        return self._request("GET", path, None, timeout)

    def post(self, path: str, body: object, timeout: float | None = None) -> EngineResponse:
        seconds, start = min(timeout or self.timeout, self._limit), time.monotonic()
        answer = self._request("POST", path, json.dumps(body).encode(), seconds)
        self.slowest_answer = max(self.slowest_answer, time.monotonic() - start)
        return answer

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Limits the time that the engine has to answer a `POST` in the block to `seconds`."""
        self._limit = seconds
        try:
            yield
        finally:
            self._limit = math.inf

    def delete(self, path: str, timeout: float = 60.0) -> EngineResponse:
        return self._request("DELETE", path, None, timeout)

    def is_healthy(self) -> bool:
        """Whether the engine reports at `/health` that it is healthy."""
        try:
            return self.get("/health").is_ok
        except Unavailable:
            return False

    def _request(self, method: str, path: str, body: bytes | None, timeout: float) -> EngineResponse:
        headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            with self._open_pool() as pool:
                answer = pool.request(
                    method,
                    f"{self.url}{path}",
                    body=body,
                    headers=headers,
                    timeout=urllib3.Timeout(connect=5, read=timeout),
                    retries=False,
                    redirect=False,
                )
        except ReadTimeoutError as error:
            raise EngineTimeout(
                f"the engine at {self.url} did not answer {method} {path} within {timeout:g} s;"
                " see the engine's log",
                seconds=timeout,
            ) from error
        except (HTTPError, OSError) as error:
            is_refused = isinstance(error, (NewConnectionError, ConnectTimeoutError))
            kind = Unavailable if is_refused else EngineDisconnect
            raise kind(f"the engine at {self.url} does not answer ({plain_reason(error)})") from error
        if is_cut_in_head(answer):
            raise EngineDisconnect(f"the engine at {self.url} does not answer (the connection broke)")
        return EngineResponse(answer.status, answer.data.decode("utf-8", "replace"))
