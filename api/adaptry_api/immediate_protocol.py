"""Extends uvicorn's HTTP protocol: writes answers from memory as soon as a request's head is parsed.

This needs no task, and one write. All other requests, and pipelined ones whose turn has not come, are passed
to the application as usual.
"""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from adaptry_api.direct_files import DirectFiles
from adaptry_api.immediate_answers import AT_ONCE, EncodedAnswer, ImmediateAnswers


class ImmediateProtocol(DirectFiles):
    """uvicorn's protocol with immediate answers, if the application's state has a function for them."""

    _is_answered = False  # whether the current request has its answer

    def on_headers_complete(self) -> None:
        self._is_answered = self._answer_at_once()
        if not self._is_answered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._is_answered:
            super().on_message_complete()

    def _answer_at_once(self) -> bool:
        answers = cast(ImmediateAnswers | None, self.app_state.get(AT_ONCE))
        method, url = self.parser.get_method(), self.url
        if answers is None or method not in (b"GET", b"HEAD") or not self._is_free():
            return False
        if not url.startswith(b"/") or b"%" in url or b"#" in url or not url.isascii():
            return False
        path, _, query = url.partition(b"?")
        scope: dict[str, Any] = cast(Any, self.scope)  # uvicorn sets the same keys later
        scope.update(method=method.decode(), path=path.decode(), raw_path=path, query_string=query)
        answer = answers(scope)
        if answer is None:
            return False
        self._write(answer)
        return True

    def _is_free(self) -> bool:
        """Whether an answer may be written now, and the connection stays open after it."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
            and not self.transport.is_closing()
            and not self.root_path
            and self.limit_concurrency is None
        )

    def _write(self, answer: EncodedAnswer) -> None:
        pieces = [STATUS_LINE[answer.status]]
        for name, value in self.server_state.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        pieces += (answer.head, b"\r\n", answer.body)
        self.transport.write(b"".join(pieces))
        self.on_response_complete()
