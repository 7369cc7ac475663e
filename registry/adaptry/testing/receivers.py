"""A real receiver of webhooks for tests: an HTTP server on this machine that keeps the requests it
receives.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from adaptry.core.lazy_dataclass import dataclass

_TIMEOUT = 60.0  # seconds, for a busy machine


@dataclass(frozen=True)
class Message:
    """A request as it arrived; the names of headers are in lower case."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """(`Any`: JSON.)"""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """It answers with `status`, and redirects to `location` if that is set, once `gate` is open.

    `connections` counts accepted connections, even if no request followed.
    """

    url: str
    status: int = 200
    location: str | None = None
    connections: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    messages: list[Message] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int) -> list[Message]:
        """Waits for this many messages and returns them."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, _TIMEOUT), self.messages
            return self.messages[:count]


@contextmanager
def receiving(status: int = 200, *, is_open: bool = True) -> Iterator[Receiver]:
    """Runs a receiver during the block. Unless it is open, it answers only after its `gate` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.arrived:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.messages.append(Message(headers, body))
                receiver.arrived.notify_all()
            receiver.gate.wait(_TIMEOUT)
            self.send_response(receiver.status)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def process_request(self, request: Any, client_address: Any) -> None:
            """(`Any`: the library's types.)"""
            receiver.connections += 1
            super().process_request(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook", status)
        if is_open:
            receiver.gate.set()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.gate.set()
            server.shutdown()
            thread.join()
