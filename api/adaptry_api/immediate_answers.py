"""Answers from memory that are written before the event loop does anything else.

A quick answer (`quick_routes`) runs as a task, behind uvicorn's and our middleware, which takes longer than
finding an answer in memory. Routes with such answers (`answered_quickly(at_once=…)`) are tried first, by the
protocol itself (`immediate_protocol`). Whatever the middleware does for a request is done here too: identity,
headers, metrics, log. Requests with anything unusual, such as a body, a range or a header of a proxy, take
the usual way; so do requests whose answer is an error, and all requests if their number is limited.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from adaptry_api.envelope import with_our_headers
from adaptry_api.metrics import RequestMetrics
from adaptry_api.quick_routes import QuickRoutes
from adaptry_api.request_ids import RequestIds
from adaptry_api.request_log import RequestRecord, log_request

AT_ONCE = "adaptry.at_once"
"""Key in the application's state: the function that answers, if the server has one."""
AnswerAtOnce = Callable[[Scope], Response | None]
_IGNORED_HEADERS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"connection",
        b"host",
        b"user-agent",
        b"x-amzn-trace-id",
        b"x-hf-download-counter",
    }
)
"""No answer depends on these, except on the caller. (The host is checked by servers with a list of hosts,
which have no immediate answers.)
"""


class ImmediateAnswers:
    """Answers requests of `app`'s routes. Only to be called on the event loop."""

    def __init__(self, app: FastAPI, counts: RequestMetrics) -> None:
        self._app = app
        self._counts = counts
        self._ids = RequestIds()
        self._find = QuickRoutes(app, app.routes).find

    def __call__(self, scope: Scope) -> Response | None:
        """The complete response, except for the headers that the protocol adds; None if the request must be
        answered in the usual way. Raises no errors.
        """
        if not _IGNORED_HEADERS.issuperset([name for name, _ in scope["headers"]]):
            return None
        began = time.perf_counter()
        scope["app"] = self._app
        request_id = scope["state"]["request_id"] = self._ids.next()
        request = Request(scope)
        try:
            if (found := self._find(request)) is None:
                return None
            (route, _), matched = found
            scope.update(matched)
            response = route.answer_at_once(request)
        except Exception:  # noqa: BLE001  (answered in the usual way, the same error is reported)
            return None
        if response is None:
            return None
        method, sent = scope["method"], len(cast(bytes, response.body))
        response.raw_headers = with_our_headers(response.raw_headers, request_id)
        seconds, status = time.perf_counter() - began, response.status_code
        self._counts.record(method, route.path, status, seconds, 0, sent)
        caller = getattr(scope["state"].get("identity"), "name", None)
        log_request(RequestRecord(request_id, caller, method, route.path, status, seconds, 0, sent))
        return response
