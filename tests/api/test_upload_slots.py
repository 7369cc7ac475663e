"""Upload slots shared by clients: a waiting client succeeds in the end, and one tenant leaves slots for
others.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.core.digest import Digest
from adaptry.core.errors import Busy
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.http import HttpRegistry
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.testing.file_by_file import push_file_by_file
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry_api.testing import Server

TONE = AdapterName.parse("acme/tone")


@dataclass(frozen=True)
class Noticing(RetryPolicy):
    """Waits for its turn until it is called, and reports that it waits."""

    waits: threading.Event = field(default_factory=threading.Event)
    turn: threading.Event = field(default_factory=threading.Event)

    def wait_in_queue(self, busy: Busy, waited: float) -> float:
        self.waits.set()
        assert self.turn.wait(60)
        return waited


def fill(registry: HttpRegistry, namespace: str) -> list[str]:
    name = AdapterName.parse(f"{namespace}/other")
    return [
        registry.uploads.open(name, Digest.of(bytes([number])), 1).id for number in range(MAX_OPEN_UPLOADS)
    ]


def test_a_push_into_a_busy_namespace_waits_and_succeeds(registry: HttpRegistry, tone: Adapter) -> None:
    opened = fill(registry, "acme")
    noticing = Noticing()
    pushed: list[int] = []

    def run() -> None:
        pushed.append(push_file_by_file(registry, tone, TONE, noticing).version.number)

    thread = threading.Thread(target=run)
    thread.start()
    assert noticing.waits.wait(60)
    registry.uploads.drop(opened[0])
    noticing.turn.set()
    thread.join(60)
    assert pushed == [1]


def test_a_push_gives_up_when_its_wait_gets_too_long(registry: HttpRegistry, tone: Adapter) -> None:
    fill(registry, "acme")
    with pytest.raises(Busy, match="64 uploads are open in acme already"):
        push_file_by_file(registry, tone, TONE, RetryPolicy(longest_queue=0.0))


def test_a_small_push_opens_no_upload_and_needs_no_place_among_them(
    registry: HttpRegistry, tone: Adapter
) -> None:
    fill(registry, "acme")
    assert push(registry, tone, TONE, retry=NO_WAIT).is_new


def test_a_full_namespace_responds_with_a_time_to_retry(server: Server, registry: HttpRegistry) -> None:
    fill(registry, "acme")
    body = {"digest": str(Digest.of(b"new")), "size": 3}
    answer = server.call("POST", "/api/v1/adapters/acme/tone/uploads", body)
    assert (answer.status, answer.json["code"]) == (429, "busy")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_namespace_that_used_its_share_does_not_delay_others(registry: HttpRegistry, tone: Adapter) -> None:
    fill(registry, "evil")
    assert push(registry, tone, TONE, retry=NO_WAIT).is_new


@contextmanager
def slow_senders(server: Server, token: str, namespace: str, count: int) -> Iterator[None]:
    """Request bodies that begin and never continue."""
    where = urlsplit(server.url)
    registry = server.registry(token)
    with ExitStack() as stack:
        for number in range(count):
            data = bytes([number]) * 1000
            upload = registry.uploads.open(AdapterName.parse(f"{namespace}/slow"), Digest.of(data), 1000)
            line = stack.enter_context(socket.create_connection((where.hostname, where.port)))
            line.sendall(
                f"PATCH /api/v1/uploads/{upload.id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                "Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n"
                "Upload-Offset: 0\r\nUpload-Size: 1000\r\n\r\nx".encode()
            )
        yield


def test_a_tenant_whose_clients_are_slow_on_purpose_leaves_slots_to_others(
    start: Callable[..., Server], tone: Adapter
) -> None:
    server = start(uploads=4)
    evil = server.token("eve", "writer", ("evil",))
    with slow_senders(server, evil, "evil", 8):
        ours = server.registry(server.token("ada", "writer", ("acme",)))
        assert push(ours, tone, TONE, retry=NO_WAIT).is_new
        held = [one.is_held for one in server.registry(evil).uploads.list().items]
        assert any(held)  # still in progress: no other upload had to wait for their timeout
