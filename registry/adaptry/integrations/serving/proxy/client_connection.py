"""A client's connection to the proxy: limits of time and size, and the proxy's own answers.

A client that is slow, sends too much or does not read loses its connection, because the number of connections
is limited and other clients need them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from typing import Any, ClassVar

from adaptry.core.errors import TooLarge
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.background_server import close_gently
from adaptry.integrations.serving.proxy.client_reader import ClientReader
from adaptry.integrations.serving.proxy.request_body import read_body

_MAX_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The maximum number of connections, and the time limits of a client in seconds: between requests
    (`idle`), for a request's head, for its body (plus one for each 64 KiB), to read a part of an answer, and
    to stop sending a request that was refused."""

    connections: int = 512
    idle: float = 75.0
    head: float = 15.0
    body: float = 15.0
    part: float = 60.0
    refused: float = 2.0


DEFAULT_LIMITS = ClientLimits()


class ClientConnection(BaseHTTPRequestHandler):
    """A connection of a client to the proxy."""

    limits: ClassVar[ClientLimits]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    has_unread_body = False

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._source = ClientReader(self.connection)
        self.rfile = self._buffered = BufferedReader(self._source)

    def finish(self) -> None:
        super().finish()
        if self.has_unread_body:
            with suppress(OSError):
                close_gently(self.connection, self.limits.refused)

    def handle_one_request(self) -> None:
        self._source.expect(_MAX_HEAD, self.limits.idle)
        try:
            is_sending = bool(self._buffered.peek(1))
        except OSError:  # idle for too long, or gone
            is_sending = False
        if not is_sending:
            self.close_connection = True
            return
        self._source.expect(_MAX_HEAD, self.limits.head)
        self.command = self.requestline = self.request_version = ""
        try:
            super().handle_one_request()
        except TooLarge:
            self.refuse_unread(431, f"the head of the request has more than {_MAX_HEAD >> 10} KiB")

    def handle_expect_100(self) -> bool:
        """Asks the client for the body only after its declared size was found to be allowed."""
        return True

    def end_headers(self) -> None:
        self.connection.settimeout(self.limits.part)
        super().end_headers()

    def is_last_answer(self) -> bool:
        """Whether the connection is closed after the next answer."""
        return self.close_connection

    def read_json(self, size: int) -> dict[str, Any]:
        """(`Any`: JSON.) Raises `Invalid`, `TimeoutError`."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return read_body(self._source, self._buffered, size, self.limits.body)

    def refuse_unread(self, status: int, message: str) -> None:
        """Refuses a request whose body was not read to its end, and closes its connection."""
        self.has_unread_body = self.close_connection = True
        self.refuse(status, message)

    def refuse(self, status: int, message: str) -> None:
        """Sends an error in the format of OpenAI's API."""
        self.send_json(status, {"error": {"message": message, "type": "adaptry", "code": status}})

    def send_json(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_answer_headers()
        self.wfile.write(data)

    def end_answer_headers(self) -> None:
        if self.is_last_answer():
            self.send_header("Connection", "close")  # also makes the server close it
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing, because the engine has a log of requests."""

    def version_string(self) -> str:
        return "adaptry"
