"""Answers from memory that are written before the event loop does anything else.

A quick answer (`quick_routes`) runs as a task, behind uvicorn's and our own middleware, which take longer
than finding an answer in memory. The protocol itself tries routes with such answers
(`with_quick_answer(immediate=…)`) first (`immediate_protocol`). Whatever the middleware does for a request is
done here too: identity, headers, metrics, log. Requests with anything unusual, such as a body, a range or a
header of a proxy, are answered in the usual way; so are requests whose answer is an error, and all requests
if their number is limited.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Scope

from adaptry.core.identity import Identity
from adaptry_api.answer_cache import AnswerCache
from adaptry_api.app_state import AppState
from adaptry_api.commit_watch import Commit
from adaptry_api.envelope import with_our_headers
from adaptry_api.metrics import RequestMetrics
from adaptry_api.quick_routes import QuickRoutes
from adaptry_api.request_ids import RequestIds
from adaptry_api.request_log import RequestRecord, log_request

IMMEDIATE = "adaptry.at_once"
"""Key in the application's state: its `ImmediateAnswers`, or None."""
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
"""Headers on which no answer depends, except through the caller. `If-None-Match` is also understood.
(Only servers with a list of hosts check the host, and they give no immediate answers.)
"""


_MAX_REQUESTS = 4096
_MAX_CACHED_BODY = 64 << 10  # bytes of a body
_MAX_CACHED_BYTES = 8 << 20  # bytes of all bodies since the last commit


class EncodedAnswer(NamedTuple):
    """A response, except for the status line and the headers that the protocol puts before `head`."""

    status: int
    head: bytes
    body: bytes


class _Kept(NamedTuple):
    """An encoded answer, and what is recorded about its requests. The id of a request belongs between
    the pieces of the head.
    """

    route: str
    caller: str | None
    status: int
    pieces: Sequence[bytes]
    body: bytes
    on_sending: Callable[[], object] | None
    depends_on_catalog: bool


class FoundAnswer(NamedTuple):
    """An answer to a request that arrived at `began`, by `time.perf_counter`. It is valid as of `commit`;
    None if no commit changes it.
    """

    method: str
    kept: _Kept
    id: str
    began: float
    commit: Commit | None


class _Request(NamedTuple):
    """A parsed request: `key` names its answer, `token` is the hash of its token."""

    method: str
    key: str
    token: bytes


class ImmediateAnswers:
    """Answers requests of `app`'s routes. Only to be called on the event loop.

    Encoded answers are kept for the caller until the next commit, as in `answer_cache`. Equal bytes are equal
    requests, so they are parsed once; only a hash of the bytes is kept, because they contain tokens.
    Unless `is_confirmed`, an answer may be sent only if `commits.ask` then reports the answer's commit.
    """

    def __init__(self, app: FastAPI, state: AppState, counts: RequestMetrics) -> None:
        self._app = app
        self._state = state
        self.commits = state.commits
        self.is_confirmed = state.commits.is_immediate
        self._counts = counts
        self._ids = RequestIds()
        self._find = QuickRoutes(app, app.routes).find
        self._answers: AnswerCache[_Kept] = AnswerCache(state.commits)
        self._commit: Commit | None = None
        self._kept_bytes = 0
        state.commits.on_change(self._forget_commit)
        self._requests: dict[bytes, _Request] = {}

    def __call__(self, scope: Scope, fingerprint: bytes | None = None) -> FoundAnswer | None:
        """The answer; None if the request must be answered in the usual way. Raises no errors. With the
        fingerprint of the request's bytes, `find_repeated` can answer the same request.
        """
        began, authorization, condition = time.perf_counter(), None, ""
        for name, value in scope["headers"]:
            if name == b"if-none-match" and not condition:
                condition = value.decode("latin-1")
            elif name not in _IGNORED_HEADERS:
                return None
            elif authorization is None and name == b"authorization":
                authorization = value.decode("latin-1")
        if self._state.request_limits.is_limiting:
            return None
        self._drop_outdated()
        authenticator, request_id = self._state.authenticator, self._ids.next()
        identity = authenticator.identify_from_cache(authorization)
        key = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {condition}"
        try:
            kept = self._answers.peek_at(key, identity, self._commit) if identity else None
            if kept is None:
                kept = self._encode(scope, identity, request_id)
                if kept is None:
                    return None
                if identity is not None:
                    self._keep(key, identity, kept)
        except Exception:  # noqa: BLE001  (answered in the usual way, the same error is reported)
            return None
        if fingerprint and authorization and (token := authenticator.token_key(authorization)):
            if len(self._requests) >= _MAX_REQUESTS:
                self._requests.clear()
            self._requests[fingerprint] = _Request(scope["method"], key, token)
        return self._found(scope["method"], kept, request_id, began)

    def find_repeated(self, fingerprint: bytes) -> FoundAnswer | None:
        """The answer to a request with the bytes of an earlier one; None if it must be parsed."""
        began, request = time.perf_counter(), self._requests.get(fingerprint)
        if request is None or self._state.request_limits.is_limiting:
            return None
        identity = self._state.authenticator.identify_key(request.token)
        self._drop_outdated()
        kept = self._answers.peek_at(request.key, identity, self._commit) if identity else None
        return self._found(request.method, kept, self._ids.next(), began) if kept else None

    def send(self, found: FoundAnswer) -> EncodedAnswer | None:
        """The response to send now; None if the request must be answered in the usual way."""
        kept = found.kept
        if kept.on_sending is not None:
            try:
                kept.on_sending()
            except Exception:  # noqa: BLE001  (answered in the usual way, the same error is reported)
                return None
        seconds, sent = time.perf_counter() - found.began, len(kept.body)
        self._counts.record(found.method, kept.route, kept.status, seconds, 0, sent)
        log_request(
            RequestRecord(found.id, kept.caller, found.method, kept.route, kept.status, seconds, 0, sent)
        )
        return EncodedAnswer(kept.status, found.id.encode().join(kept.pieces), kept.body)

    def _forget_commit(self, commit: Commit) -> None:
        """The cache is empty now."""
        self._commit, self._kept_bytes = None, 0

    def _drop_outdated(self) -> None:
        commit = self.commits.last_known()
        if commit != self._commit:
            self._commit, self._kept_bytes = commit, 0

    def _keep(self, key: str, identity: Identity, kept: _Kept) -> None:
        size = len(kept.body)
        if size <= _MAX_CACHED_BODY and self._kept_bytes + size <= _MAX_CACHED_BYTES:
            self._kept_bytes += size
            self._answers.put(key, identity, kept, self._commit)

    def _found(self, method: str, kept: _Kept, request_id: str, began: float) -> FoundAnswer | None:
        commit = self._commit if kept.depends_on_catalog else None
        if commit is None and kept.depends_on_catalog:
            return None
        return FoundAnswer(method, kept, request_id, began, commit)

    def _encode(self, scope: Scope, identity: Identity | None, request_id: str) -> _Kept | None:
        """The answer of a route. Raises any error."""
        scope["app"] = self._app
        scope["state"]["request_id"] = request_id
        request = Request(scope)
        if (found := self._find(request)) is None:
            return None
        (route, _), matched = found
        scope.update(matched)
        answer = route.answer_from_memory(request, identity)
        if answer is None:
            return None
        headers = with_our_headers(answer.response.raw_headers, request_id, scope)
        head = b"".join(piece for name, value in headers for piece in (name, b": ", value, b"\r\n"))
        if head.count(b"\r") != len(headers) or head.count(b"\n") != len(headers) or b"\0" in head:
            raise RuntimeError("a header of the response has a control character")
        caller = scope["state"].get("identity")
        return _Kept(
            route.path,
            caller.name if caller else None,
            answer.response.status_code,
            head.split(request_id.encode()),  # the id is new, so it is nowhere else
            bytes(answer.response.body),
            answer.on_sending,
            answer.depends_on_catalog,
        )
