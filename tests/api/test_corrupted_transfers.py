"""Bytes that are changed or lost in transit between client and server, in both directions."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import DigestMismatch
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.http import HttpRegistry
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

NAME = AdapterName.parse("acme/tone")
WEIGHTS = "adapter_model.safetensors"
WITHOUT_WAITING = RetryPolicy(tries=4, first_wait=0.0)

Meddle = Callable[[bytes], bytes | None]
"""What becomes of some bytes that pass; None cuts the connection."""


def untouched(data: bytes) -> bytes:
    return data


@contextmanager
def between(
    server: Server, *, upwards: Meddle = untouched, downwards: Meddle = untouched
) -> Iterator[HttpRegistry]:
    """A registry whose connections pass through a proxy that tampers with them."""
    parts = urlsplit(server.url)
    assert parts.hostname and parts.port
    address = (parts.hostname, parts.port)
    relays: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                relays.append(threading.Thread(target=relay, args=(client, address, upwards, downwards)))
                relays[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        registry = HttpRegistry(f"http://127.0.0.1:{listening.getsockname()[1]}", server.admin)
        try:
            yield registry
        finally:
            registry.close()
            listening.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *relays):
                thread.join()


def relay(client: socket.socket, address: tuple[str, int], upwards: Meddle, downwards: Meddle) -> None:
    with client, socket.create_connection(address) as upstream:
        answers = threading.Thread(target=carry, args=(upstream, client, downwards))
        answers.start()
        carry(client, upstream, upwards)
        answers.join()


def carry(source: socket.socket, target: socket.socket, meddle: Meddle) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            passed = meddle(data)
            if passed is None:
                break
            target.sendall(passed)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def large(tmp_path: Path) -> Adapter:
    """An adapter whose weights need many packets."""
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return open_dir(tiny_lora(tmp_path / "large", hidden=64, layers=4, rank=32, targets=targets))


class InFile:
    """Tampers with the byte at position `DISTANCE` of a file, in either direction, up to `times` times."""

    def __init__(self, act: Callable[[bytearray, int], bytes | None], times: int = 1) -> None:
        self.act = act
        self.left = times
        self.position: int | None = None  # position of the next byte, counted from the start of the last file

    def __call__(self, data: bytes) -> bytes | None:
        begins = data.rfind(FILE)
        if begins >= 0:
            self.position = -begins
        if self.position is None:
            return data
        here = DISTANCE - self.position
        self.position += len(data)
        if not self.left or not 0 <= here < len(data):
            return data
        self.left -= 1
        return self.act(bytearray(data), here)


FILE = b"application/octet-stream"
DISTANCE = 100_000


def flip(data: bytearray, at: int) -> bytes:
    data[at] ^= 1
    return bytes(data)


def cut(data: bytearray, at: int) -> None:
    return None


def test_a_bit_flipped_in_an_upload_is_detected_and_nothing_is_published(
    server: Server, large: Adapter
) -> None:
    with between(server, upwards=InFile(flip)) as registry, pytest.raises(DigestMismatch):
        push(registry, large, NAME, retry=WITHOUT_WAITING)
    assert server.registry().versions.search("").items == ()
    assert push(server.registry(), large, NAME).version.number == 1


def test_a_bit_flipped_in_a_download_is_detected_and_nothing_is_written(
    server: Server, large: Adapter, tmp_path: Path
) -> None:
    push(server.registry(), large, NAME)
    with between(server, downwards=InFile(flip)) as registry, pytest.raises(DigestMismatch):
        pull(registry, "acme/tone", tmp_path / "pulled", retry=WITHOUT_WAITING)
    assert not (tmp_path / "pulled").exists()


def test_an_interrupted_download_continues_where_it_stopped(
    server: Server, large: Adapter, tmp_path: Path
) -> None:
    push(server.registry(), large, NAME)
    cuts = InFile(cut, times=2)
    with between(server, downwards=cuts) as registry:
        pull(registry, "acme/tone", tmp_path / "pulled", retry=WITHOUT_WAITING)
    assert cuts.left == 0
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == b"".join(large.content.chunks(WEIGHTS))


def test_an_interrupted_upload_continues_until_it_is_complete(server: Server, large: Adapter) -> None:
    cuts = InFile(cut, times=2)
    with between(server, upwards=cuts) as registry:
        assert push(registry, large, NAME, retry=WITHOUT_WAITING).version.number == 1
    assert cuts.left == 0


def test_a_push_whose_answer_was_lost_creates_one_version(server: Server, large: Adapter) -> None:
    lost = 2

    def cut_answer(data: bytes) -> bytes | None:
        nonlocal lost
        if b'"is_new"' not in data or not lost:
            return data
        lost -= 1
        return None

    with between(server, downwards=cut_answer) as registry:
        pushed = push(registry, large, NAME, retry=WITHOUT_WAITING)
    assert (lost, pushed.version.number, pushed.is_new) == (0, 1, False)
    assert len(server.registry().versions.list(NAME).items) == 1
