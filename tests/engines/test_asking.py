"""Asking a server what it is: what is left of one answer is never taken for the beginning of the next."""

from __future__ import annotations

import select
import socket
import threading

from adaptry.integrations.engine_probe import probe_engine

ANSWERS = {
    b"/version": (200, b'{"version": "0.33.0"}'),
    b"/metrics": (200, b""),
    b"/v1/models": (200, b'{"data": [{"id": "org/tiny", "root": "/models/tiny"}]}'),
}


def serve(listening: socket.socket) -> None:
    """Sends a body only when the client says something more, as a slow server's may come late."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            while request := lines.readline():
                while lines.readline().strip():
                    pass
                status, body = ANSWERS.get(request.split()[1], (404, b'{"detail":"Not Found"}'))
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode())
                if status != 200:
                    select.select([connection], [], [], 5)
                try:
                    connection.sendall(body)
                except OSError:
                    break


def test_an_answer_that_is_not_read_spoils_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        found = probe_engine(f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert (str(found.runtime), found.models) == ("vllm@0.33.0", ("/models/tiny", "org/tiny"))
