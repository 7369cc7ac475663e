"""Extends uvicorn's HTTP protocol: writes answers from memory as soon as a request's head is parsed.

This needs no task, and only one write. If the same bytes were answered before, they are not even parsed. On
PostgreSQL, such requests first wait until the last commit is known (`commit_watch`), also without a task. All
other requests, and pipelined ones whose turn has not come, are passed to the application as usual.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from adaptry_api.direct_files import DirectFiles
from adaptry_api.immediate_answers import AT_ONCE, EncodedAnswer, ImmediateAnswers

_TRACE = b"\r\nX-Amzn-Trace-Id: "
_TRACE_SIZE = 36
_TRACE_DIGITS = b"0123456789abcdef-"


class _Deferred(NamedTuple):
    """A request that is answered when the last commit is known. (Compare objects with `is`.)"""

    data: bytes
    fingerprint: bytes
    began: float


class ImmediateProtocol(DirectFiles):
    """uvicorn's protocol with immediate answers, if the application's state has them."""

    _is_between_requests = True  # whether the parser waits for the first byte of a request
    _is_answered = False  # whether the current request has been answered
    _fingerprint: bytes | None = None  # of the last received bytes, if they can be a whole request
    _deferred: _Deferred | None = None

    def data_received(self, data: bytes) -> None:
        self._end_deferral()
        self._fingerprint = None
        answers = cast(ImmediateAnswers | None, self.app_state.get(AT_ONCE))
        if answers and self._is_between_requests and not self._to_skip:
            self._fingerprint = known = fingerprint(data)
            if known and self._is_free():
                if answers.awaits_commit(known):
                    self._defer(_Deferred(data, known, time.perf_counter()), answers)
                    return
                if answer := answers.again(known):
                    self._unset_keepalive_if_required()
                    self._write(answer)
                    self.on_unparsed_request()
                    return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deferred = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._end_deferral()
        super().shutdown()

    def on_unparsed_request(self) -> None:
        """Called when a whole request has arrived that may be answered without the parser."""

    def _defer(self, request: _Deferred, answers: ImmediateAnswers) -> None:
        """Answers the request when the last commit is known."""
        self._unset_keepalive_if_required()
        self.on_unparsed_request()
        self._deferred = request
        answers.commits.ask(lambda commit: self._on_commit(request, answers))

    def _on_commit(self, request: _Deferred, answers: ImmediateAnswers) -> None:
        if request is not self._deferred:
            return
        try:
            answer = answers.again(request.fingerprint, request.began) if self._is_free() else None
            if answer is None:
                self._end_deferral()
            else:
                self._deferred = None
                self._write(answer)
        except Exception:
            self.transport.abort()
            raise

    def _end_deferral(self) -> None:
        """Lets the parser handle a deferred request."""
        request, self._deferred = self._deferred, None
        if request is not None and not self.transport.is_closing():
            super().data_received(request.data)

    def on_message_begin(self) -> None:
        self._is_between_requests = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_answered = self._answer_at_once()
        if not self._is_answered:
            self._unset_keepalive_if_required()  # set by the answer to an earlier request in these bytes
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_between_requests = True
        if not self._is_answered:
            super().on_message_complete()

    def _answer_at_once(self) -> bool:
        answers = cast(ImmediateAnswers | None, self.app_state.get(AT_ONCE))
        method, url = self.parser.get_method(), self.url
        if answers is None or method not in (b"GET", b"HEAD") or not self._is_free() or not self._is_usual():
            return False
        path, _, query = url.partition(b"?")
        if not path.startswith(b"/") or b"%" in path or b"#" in url or not url.isascii():
            return False
        scope: dict[str, Any] = cast(Any, self.scope)  # uvicorn sets the same keys later
        scope.update(method=method.decode(), path=path.decode(), raw_path=path, query_string=query)
        answer = answers(scope, self._fingerprint)
        if answer is None:
            return False
        self._write(answer)
        return True

    def _is_free(self) -> bool:
        """Whether an answer may be written now."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _is_usual(self) -> bool:
        """Whether the connection stays open after this request's answer, and uses HTTP/1.1."""
        return (
            self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.root_path
            and self.limit_concurrency is None
        )

    def _write(self, answer: EncodedAnswer) -> None:
        pieces = [STATUS_LINE[answer.status]]
        for name, value in self.server_state.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        pieces += (answer.head, b"\r\n", answer.body)
        if self.cycle is not None:
            self.cycle.transport.write(b"")  # the answer before, if it is still held back (`ResponseWriter`)
        self.transport.write(b"".join(pieces))
        self.on_response_complete()


def fingerprint(received: bytes) -> bytes | None:
    """Identifies these bytes, if they look like a single GET or HEAD request without a body. A trace id that
    clients generate for each request makes no difference.
    """
    if not received.endswith(b"\r\n\r\n") or received[:4] not in (b"GET ", b"HEAD"):
        return None
    lines = received.count(b"\r\n")
    if received.count(b"\r") != lines or received.count(b"\n") != lines:
        return None  # parsers disagree on what ends such lines
    if received.index(b"\r\n\r\n") != len(received) - 4:
        return None
    at = received.find(_TRACE)
    if at >= 0:
        start = at + len(_TRACE)
        end = start + _TRACE_SIZE
        if received[end : end + 2] == b"\r\n" and not received[start:end].translate(None, _TRACE_DIGITS):
            received = received[:start] + received[end:]
    return hashlib.sha256(received).digest()
