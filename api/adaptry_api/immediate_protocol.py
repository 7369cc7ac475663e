"""Extends uvicorn's HTTP protocol: writes answers from memory as soon as a request's head is parsed.

This needs no task, and only one write. If the same bytes were answered before, they are not even parsed. On
PostgreSQL, an answer is held until it is known that nothing was committed since it was read (`commit_watch`);
otherwise its request is handled again, in the usual way. All other requests, and pipelined ones whose turn
has not come, are passed to the application as usual.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from adaptry_api.commit_watch import Commit
from adaptry_api.direct_files import DirectFiles
from adaptry_api.immediate_answers import IMMEDIATE, EncodedAnswer, FoundAnswer, ImmediateAnswers

_TRACE = b"\r\nX-Amzn-Trace-Id: "
_TRACE_SIZE = 36
_TRACE_DIGITS = b"0123456789abcdef-"


class _HeldRequest(NamedTuple):
    """A request, and its answer, which waits for the last commit to be known. (Compare objects with `is`.)"""

    data: bytes
    answer: FoundAnswer


class ImmediateProtocol(DirectFiles):
    """uvicorn's protocol with immediate answers, if the application's state has them."""

    _is_between_requests = True  # whether the parser waits for the first byte of a request
    _is_answered = False  # whether the current request has been answered
    _fingerprint: bytes | None = None  # of the last received bytes, if they may be a whole request
    _whole = b""  # a whole request, while it is handled, if its answer may be held
    _held: _HeldRequest | None = None
    _is_usual_only = False  # whether no request is answered from memory

    def data_received(self, data: bytes) -> None:
        if self._held is not None:
            self._handle_held_as_usual()
        self._fingerprint = None
        answers = cast(ImmediateAnswers | None, self.app_state.get(IMMEDIATE))
        if answers and self._is_between_requests and not self._to_skip:
            self._fingerprint = fingerprint(data)
            if self._fingerprint and not answers.is_confirmed:
                self._whole = data
            if self._fingerprint and self._is_free() and (found := answers.find_repeated(self._fingerprint)):
                self._unset_keepalive_if_required()
                if self._answer(answers, found):
                    self._whole = b""
                    self.on_unparsed_request()
                    return
        super().data_received(data)
        self._whole = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._handle_held_as_usual()
        super().shutdown()

    def on_unparsed_request(self) -> None:
        """Called after a request was answered without the parser."""

    def _answer(self, answers: ImmediateAnswers, found: FoundAnswer) -> bool:
        """Sends an answer now, or when the last commit is known; False if it must be made in another way."""
        if answers.is_confirmed or found.commit is None:
            return self._send_found(answers, found)
        if not self._whole:
            return False  # only whole requests can be handled again
        self._held = held = _HeldRequest(self._whole, found)
        answers.commits.ask(lambda commit: self._on_commit(answers, held, commit))
        return True

    def _on_commit(self, answers: ImmediateAnswers, held: _HeldRequest, commit: Commit | None) -> None:
        if held is not self._held:
            return
        try:
            if commit == held.answer.commit and self._is_free() and self._send_found(answers, held.answer):
                self._held = None
            else:
                self._handle_held_as_usual()
        except Exception:
            self.logger.exception("cannot answer a request")
            self.transport.abort()

    def _handle_held_as_usual(self) -> None:
        """Handles the request whose answer is held in the usual way."""
        held, self._held = self._held, None
        if held is None or self.transport.is_closing():
            return
        self._is_usual_only = True
        try:
            super().data_received(held.data)
        finally:
            self._is_usual_only = False

    def _send_found(self, answers: ImmediateAnswers, found: FoundAnswer) -> bool:
        if (answer := answers.send(found)) is None:
            return False
        self._write(answer)
        return True

    def on_message_begin(self) -> None:
        self._is_between_requests = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_answered = self._answer_immediately()
        if not self._is_answered:
            self._unset_keepalive_if_required()  # set by the answer to an earlier request in these bytes
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_between_requests = True
        if not self._is_answered:
            super().on_message_complete()

    def _answer_immediately(self) -> bool:
        answers = cast(ImmediateAnswers | None, self.app_state.get(IMMEDIATE))
        method, url = self.parser.get_method(), self.url
        if answers is None or self._is_usual_only or method not in (b"GET", b"HEAD"):
            return False
        if not self._is_free() or not self._is_usual():
            return False
        path, _, query = url.partition(b"?")
        if not path.startswith(b"/") or b"%" in path or b"#" in url or not url.isascii():
            return False
        scope: dict[str, Any] = cast(Any, self.scope)  # uvicorn sets the same keys later
        scope.update(method=method.decode(), path=path.decode(), raw_path=path, query_string=query)
        found = answers(scope, self._fingerprint)
        return found is not None and self._answer(answers, found)

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
            self.cycle.transport.write(b"")  # the previous answer, if still held back (`ResponseWriter`)
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
