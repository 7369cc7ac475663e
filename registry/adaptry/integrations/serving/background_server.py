"""An HTTP server on a thread of this process, with a thread for each connection, up to a maximum."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from adaptry.core.errors import Invalid

_REFUSING = 32  # connections beyond the maximum that are being refused, each on a separate thread
_REFUSED_SECONDS = 1.0  # time for a refused client to read its response
_REFUSED_BODY = b'{"error": {"message": "too many connections; try again", "type": "adaptry", "code": 503}}'
_REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_REFUSED_BODY), _REFUSED_BODY)
)


class BackgroundServer:
    """Listens at `host:port` (port 0: any free port) from its creation, and answers while the block runs.
    Connections beyond `max_connections` get 503."""

    def __init__(
        self, host: str, port: int, handler: type[BaseHTTPRequestHandler], max_connections: int = 128
    ) -> None:
        """Raises `Invalid` if it cannot listen at the address."""
        kind = _Ipv6Server if ":" in host else _Server
        try:
            self._server = kind((host, port), handler, max_connections)
        except (OSError, OverflowError) as error:
            raise Invalid(f"cannot listen on {host}:{port} ({error})") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the connections are taken, so that idle ones are better closed."""
        return self._server.connections.is_crowded

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Accepts no further connections. Answers in progress are cut off when the process ends."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Connections:
    """Counts connections. Safe to use from any thread."""

    def __init__(self, maximum: int) -> None:
        self._most = maximum
        self._count = 0
        self._guard = threading.Lock()

    def begin(self) -> bool:
        """Counts one more connection. Returns False, without counting, if the maximum is reached."""
        with self._guard:
            if self._count >= self._most:
                return False
            self._count += 1
            return True

    def end(self) -> None:
        with self._guard:
            self._count -= 1

    @property
    def is_crowded(self) -> bool:
        return self._count > self._most // 2


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], max_connections: int
    ) -> None:
        self.connections = _Connections(max_connections)
        self._refused = _Connections(_REFUSING)
        super().__init__(address, handler)

    # (`Any`: a socket; socketserver declares no type.)
    def process_request(self, request: Any, client_address: Any) -> None:
        if self.connections.begin():
            self._start(self._serve, self.connections, request, client_address)
        elif self._refused.begin():
            self._start(self._refuse, self._refused, request)
        else:
            request.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores errors: clients may disconnect at any time."""

    def _start(self, target: Any, counted: _Connections, request: Any, *more: Any) -> None:
        try:
            threading.Thread(target=target, args=(request, *more), daemon=True).start()
        except RuntimeError:  # no further thread
            counted.end()
            request.close()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self.connections.end()

    def _refuse(self, request: socket.socket) -> None:
        try:
            request.settimeout(_REFUSED_SECONDS)
            request.sendall(_REFUSED)
            close_gently(request, _REFUSED_SECONDS)
        except OSError:
            pass
        finally:
            request.close()
            self._refused.end()


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


def close_gently(connection: socket.socket, seconds: float) -> None:
    """Stops sending, and reads remaining data for up to `seconds`: a connection that is closed with unread
    bytes is reset, and then the client loses the response too."""
    deadline = time.monotonic() + seconds
    connection.shutdown(socket.SHUT_WR)
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        if not connection.recv(1 << 16):
            return
