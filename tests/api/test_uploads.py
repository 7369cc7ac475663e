"""Uploads over HTTP: interrupted, resumed, altered, and of any size without growth of the server's memory."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import (
    Conflict,
    DigestMismatch,
    NotFound,
    OffsetMismatch,
    StorageFull,
    TooLarge,
    Unavailable,
    Unsupported,
)
from adaptry.core.refs import AdapterName
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit, UploadInfo
from adaptry.testing.warm_python import WarmPython
from adaptry_api.testing import Server, assert_problem

NAME = AdapterName.parse("acme/tone")
DATA = bytes(range(256)) * 8192  # 2 MiB
DIGEST = Digest.of(DATA)


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    server.registry().adapters.create(NAME, AdapterEdit())


def pieces(data: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_uploaded_bytes_are_available_once_they_are_verified(registry: HttpRegistry) -> None:
    upload = registry.uploads.open(NAME, DIGEST, len(DATA))
    upload = registry.uploads.append(upload, 0, pieces(DATA))
    assert (upload.offset, registry.files.has(NAME, DIGEST)) == (len(DATA), False)
    registry.uploads.finish(upload)
    registry.uploads.finish(upload)
    assert registry.files.has(NAME, DIGEST)


def test_a_failing_source_keeps_sent_bytes_and_raises_its_own_error(
    registry: HttpRegistry,
) -> None:
    def failing() -> Iterator[bytes]:
        yield DATA[:100_000]
        raise ZeroDivisionError("the disk of the sender")

    upload = registry.uploads.open(NAME, DIGEST, len(DATA))
    with pytest.raises(ZeroDivisionError):
        registry.uploads.append(upload, 0, failing())
    again = registry.uploads.open(NAME, DIGEST, len(DATA))
    assert again.offset == 100_000
    registry.uploads.finish(registry.uploads.append(again, again.offset, pieces(DATA[again.offset :])))
    assert registry.files.has(NAME, DIGEST)


def test_a_piece_at_a_wrong_offset_is_answered_with_the_right_offset(
    server: Server, registry: HttpRegistry
) -> None:
    upload = registry.uploads.append(registry.uploads.open(NAME, DIGEST, len(DATA)), 0, [DATA[:1000]])
    for wrong in (0, 999, 1001):
        with pytest.raises(OffsetMismatch) as caught:
            registry.uploads.append(upload, wrong, [DATA[wrong:]])
        assert caught.value.offset == 1000
    headers = {
        "Content-Type": "application/octet-stream",
        "Upload-Offset": "5",
        "Upload-Size": str(len(DATA)),
    }
    answer = server.call("PATCH", f"/api/v1/uploads/{upload.id}", DATA, headers=headers)
    assert_problem(answer, 416, "offset_mismatch")
    assert answer.headers["Upload-Offset"] == "1000"


def test_more_than_the_announced_size_is_refused(registry: HttpRegistry) -> None:
    upload = registry.uploads.open(NAME, DIGEST, len(DATA))
    with pytest.raises(TooLarge):
        registry.uploads.append(upload, 0, [DATA, b"x"])


def test_a_file_too_large_is_refused_before_a_byte_is_sent(registry: HttpRegistry) -> None:
    with pytest.raises((TooLarge, StorageFull)):
        registry.uploads.open(NAME, DIGEST, (8 << 30) + 1)


def test_bytes_of_another_digest_are_not_kept(registry: HttpRegistry) -> None:
    upload = registry.uploads.open(NAME, Digest.of(b"something else"), len(DATA))
    upload = registry.uploads.append(upload, 0, pieces(DATA))
    with pytest.raises(DigestMismatch):
        registry.uploads.finish(upload)
    assert not registry.files.has(NAME, DIGEST)
    assert not registry.files.has(NAME, Digest.of(b"something else"))


def test_an_unfinished_file_cannot_be_finished(registry: HttpRegistry) -> None:
    upload = registry.uploads.append(registry.uploads.open(NAME, DIGEST, len(DATA)), 0, [DATA[:5]])
    with pytest.raises(Conflict):
        registry.uploads.finish(upload)


def test_an_upload_session_of_another_tenant_is_absent(server: Server, registry: HttpRegistry) -> None:
    upload = registry.uploads.open(NAME, DIGEST, len(DATA))
    stranger = server.registry(server.token("eve", "writer", ("evil",)))
    with pytest.raises(NotFound):
        stranger.uploads.append(upload, 0, [DATA])
    with pytest.raises(NotFound):
        stranger.uploads.finish(upload)


@pytest.mark.parametrize("id", ["x", "..%2f..%2fetc", "%00", "a" * 600, "1", "-1"])
def test_an_invented_upload_session_is_absent(server: Server, id: str) -> None:
    headers = {"Content-Type": "application/octet-stream", "Upload-Offset": "0", "Upload-Size": "1"}
    assert server.call("PATCH", f"/api/v1/uploads/{id}", b"x", headers=headers).status in (400, 404, 422)
    finish = server.call("POST", f"/api/v1/uploads/{id}/finish", {"offset": 1, "size": 1})
    assert finish.status in (400, 404, 422)


@pytest.mark.parametrize("changed", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}])
def test_an_upload_that_is_not_plain_bytes_is_refused(
    server: Server, registry: HttpRegistry, changed: dict[str, str]
) -> None:
    upload = registry.uploads.open(NAME, DIGEST, len(DATA))
    headers = {
        "Content-Type": "application/octet-stream",
        "Upload-Offset": "0",
        "Upload-Size": str(len(DATA)),
        **changed,
    }
    answer = server.call("PATCH", f"/api/v1/uploads/{upload.id}", DATA, headers=headers)
    assert_problem(answer, 415, Unsupported.code)


def test_bytes_received_before_a_connection_breaks_are_kept(server: Server, registry: HttpRegistry) -> None:
    upload = registry.uploads.open(NAME, DIGEST, len(DATA))
    parts = urlsplit(server.url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.putrequest("PATCH", f"/api/v1/uploads/{upload.id}")
    for name, value in {
        "Authorization": f"Bearer {server.admin}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(DATA)),
        "Upload-Offset": "0",
        "Upload-Size": str(len(DATA)),
    }.items():
        connection.putheader(name, value)
    connection.endheaders(DATA[: len(DATA) // 2])
    connection.close()
    while not any(file.stat().st_size for file in (server.data / "blobs" / "tmp").iterdir()):
        os.sched_yield()  # a request before the writer has the session would take the session away

    assert settled(registry, upload) == len(DATA) // 2
    assert registry.uploads.open(NAME, DIGEST, len(DATA)).offset == len(DATA) // 2


def settled(registry: HttpRegistry, upload: UploadInfo) -> int:
    """The number of bytes in a session after the server has noticed that its writer is gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            registry.uploads.append(
                upload, 0, []
            )  # refused once bytes have arrived and no request is writing
        except OffsetMismatch as error:
            return error.offset
        except Conflict:
            continue
    raise AssertionError("the server never noticed that the connection was cut")


SERVER = """
import sys
from pathlib import Path
from adaptry_api.serve import serve
from adaptry_api.settings import ServerSettings
serve(ServerSettings(data=Path(sys.argv[1])), port=int(sys.argv[2]), \
announce=lambda started: print(started.url, flush=True))
"""


def process(data: Path, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    running = WarmPython(
        [sys.executable, "-c", SERVER, str(data), str(port)], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout
    return running, running.stdout.readline().strip()


def test_an_upload_continues_after_the_server_was_killed(tmp_path: Path) -> None:
    data = tmp_path / "killed"
    first, url = process(data)
    second: subprocess.Popen[str] | None = None
    large = DATA * 8
    digest = Digest.of(large)
    try:
        registry = HttpRegistry(url, (data / "admin-token").read_text().strip())
        registry.adapters.create(NAME, AdapterEdit())
        upload = registry.uploads.open(NAME, digest, len(large))

        def killing() -> Iterator[bytes]:
            yield from pieces(large[: len(large) // 2], 1 << 20)
            while not any(file.stat().st_size for file in (data / "blobs" / "tmp").iterdir()):
                os.sched_yield()  # sent bytes may still be in the system's buffers
            first.send_signal(signal.SIGKILL)
            first.wait()
            yield from pieces(large[len(large) // 2 :], 1 << 20)

        with pytest.raises(Unavailable):
            registry.uploads.append(upload, 0, killing())
        with pytest.raises(Unavailable, match="is the server running"):
            registry.files.has(NAME, digest)

        second, again = process(data, urlsplit(url).port or 0)
        assert again == url
        resumed = registry.uploads.open(NAME, digest, len(large))
        assert 0 < resumed.offset <= len(large) // 2
        assert not registry.files.has(NAME, digest)
        resumed = registry.uploads.append(resumed, resumed.offset, pieces(large[resumed.offset :], 1 << 20))
        registry.uploads.finish(resumed)
        assert registry.files.has(NAME, digest)
    finally:
        for running in (first, second):
            if running is not None:
                running.terminate()
                running.wait()
                assert running.stdout
                running.stdout.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_uploads_and_torch_is_never_imported(tmp_path: Path) -> None:
    size = 128 << 20
    running, url = process(tmp_path / "large")
    try:
        registry = HttpRegistry(url, (tmp_path / "large" / "admin-token").read_text().strip())
        registry.adapters.create(NAME, AdapterEdit())
        digest = Digest.of_chunks(DATA for _ in range(size // len(DATA)))
        upload = registry.uploads.open(NAME, digest, size)
        upload = registry.uploads.append(upload, 0, [DATA])
        before = peak(running.pid)
        rest = (DATA for _ in range(size // len(DATA) - 1))
        registry.uploads.finish(registry.uploads.append(upload, len(DATA), rest))
        assert registry.files.has(NAME, digest)
        assert peak(running.pid) - before < 48 << 20
        loaded = Path(f"/proc/{running.pid}/maps").read_text()
        assert "libtorch" not in loaded
    finally:
        running.terminate()
        running.wait()
        assert running.stdout
        running.stdout.close()


def peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10
