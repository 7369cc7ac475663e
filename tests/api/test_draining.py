"""A server that is asked to stop reports this, finishes running requests and accepts no new ones."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit
from adaptry.testing.warm_python import WarmPython

CODE = """
import sys
from pathlib import Path
from adaptry_api.serve import serve
from adaptry_api.settings import ServerSettings
serve(
    ServerSettings(data=Path(sys.argv[1]), notice=float(sys.argv[2])),
    port=0,
    announce=lambda started: print(started.url, flush=True),
)
"""
TONE = AdapterName.parse("acme/tone")
FOR_EVER = 600.0
Running = tuple["subprocess.Popen[str]", str, str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[float], Running]]:
    """Runs a server with a notice period; yields its process, its address and its first token."""
    with ExitStack() as stack:

        def start(notice: float) -> Running:
            command = [sys.executable, "-c", CODE, str(tmp_path / "data"), str(notice)]
            process = stack.enter_context(WarmPython(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout
            url = process.stdout.readline().strip()
            return process, url, (tmp_path / "data" / "admin-token").read_text().strip()

        yield start


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)


def status(url: str, path: str) -> int:
    connection = connect(url)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_during_its_notice_a_server_answers_and_reports_not_ready(run: Callable[[float], Running]) -> None:
    process, url, token = run(FOR_EVER)
    assert status(url, "/readyz") == 200
    process.send_signal(signal.SIGTERM)
    while status(url, "/readyz") != 503:
        pass
    HttpRegistry(url, token).adapters.create(TONE, AdapterEdit())
    assert status(url, "/healthz") == 200
    process.send_signal(signal.SIGTERM)  # the notice period has ended
    assert process.wait(timeout=60) in (0, -signal.SIGTERM)


def test_a_running_request_is_finished_and_a_stream_is_ended(run: Callable[[float], Running]) -> None:
    process, url, token = run(0)
    registry = HttpRegistry(url, token)
    registry.adapters.create(TONE, AdapterEdit())
    data = b"x" * 1000
    session = registry.uploads.open(TONE, Digest.of(data), len(data))
    bearer = {"Authorization": f"Bearer {token}"}

    stream = connect(url)
    stream.request("GET", "/api/v1/events", headers={**bearer, "Accept": "text/event-stream"})
    listening = stream.getresponse()
    assert listening.readline().startswith(b"retry")

    upload = connect(url)
    upload.putrequest("PATCH", f"/api/v1/uploads/{session.id}")
    for name, value in {
        **bearer,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(data)),
        "Upload-Offset": "0",
        "Upload-Size": str(len(data)),
        "Expect": "100-continue",
    }.items():
        upload.putheader(name, value)
    upload.endheaders()
    assert upload.sock.recv(100).startswith(
        b"HTTP/1.1 100 "
    )  # the server waits for the body: the request runs
    upload.send(data[:500])

    process.send_signal(signal.SIGTERM)
    while listening.readline():
        pass  # the stream ends although nothing happened
    with pytest.raises(OSError):
        while True:  # until no new request is accepted
            status(url, "/healthz")
    upload.send(data[500:])
    answer = upload.getresponse()
    assert (answer.status, b"1000" in answer.read()) == (200, True)
    assert process.wait(timeout=60) in (0, -signal.SIGTERM)
    for connection in (stream, upload):
        connection.close()
