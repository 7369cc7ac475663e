"""The first weights file of a Xet upload is stored while its xorbs arrive, if they come in its order."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from adaptry.adapters.header import parse_header
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.quotas import QuotaRequest
from adaptry.storage.catalog import inspections
from adaptry_api.hub.xet import early_join
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server, until

from .uploads import TONE, XetUpload, create, has, kept
from .xet_bodies import chunk, file_entry, shard

CHUNK = 128 << 10
HASHES = ("ab" * 32, "cd" * 32, "ef" * 32)


def weights(seed: int = 0) -> bytes:
    """A safetensors file of slightly more than 9 MiB, whose numbers are all finite."""
    size = 9 << 20
    numbers = random.Random(seed).randbytes(size // 2).translate(bytes(byte & 0x3F for byte in range(256)))
    info = {"a.lora_A.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(info).encode()
    return len(header).to_bytes(8, "little") + header + numbers + numbers


WEIGHTS = weights()


def split(content: bytes, parts: int) -> list[list[bytes]]:
    """The content, divided into that many xorbs of chunks."""
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    each = -(-len(chunks) // parts)
    return [chunks[at : at + each] for at in range(0, len(chunks), each)]


XORBS = split(WEIGHTS, 3)


def send(upload: XetUpload, number: int) -> None:
    assert upload.xorb(b"".join(map(chunk, XORBS[number])), HASHES[number]).status == 200


def entry(order: Sequence[int], content: bytes | str) -> bytes:
    """The file that consists of these xorbs."""
    return file_entry(
        content, [(HASHES[each], len(b"".join(XORBS[each])), 0, len(XORBS[each])) for each in order]
    )


def open_uploads(server: Server) -> list[int]:
    """The number of bytes of each open upload."""
    return [found.offset for found in server.registry().uploads.list().items]


def finish_in_another_process(server: Server, upload: XetUpload) -> None:
    """Sends the xorbs to `server`, and their shard to another process on its folder."""
    for number in range(3):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    with running_server(ServerSettings(data=server.data)) as other:
        of_other = replace(upload, server=other)
        assert of_other.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert open_uploads(server) == []


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    create(server)


@pytest.fixture(autouse=True)
def any_xorb_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small xorbs count as full: real ones have 64 MiB."""
    monkeypatch.setattr(early_join, "_FULL", len(b"".join(XORBS[0])) - CHUNK)


@pytest.fixture
def upload(server: Server) -> XetUpload:
    return XetUpload.start(server)


def test_a_file_is_stored_and_inspected_before_its_shard_comes(server: Server, upload: XetUpload) -> None:
    for number in range(3):
        send(upload, number)
        sent = sum(len(each) for xorb in XORBS[: number + 1] for each in xorb)
        until(lambda: open_uploads(server), [sent].__eq__)
    assert not has(server, WEIGHTS)

    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}

    assert has(server, WEIGHTS)
    assert open_uploads(server) == []
    length = int.from_bytes(WEIGHTS[:8], "little")
    with server.catalog.read() as tx:
        (found,) = inspections.find(tx, [Digest.of(WEIGHTS)]).values()
    assert found.tensors.keys() == parse_header(WEIGHTS[8 : 8 + length], len(WEIGHTS), "it").tensors.keys()


def test_a_short_xorb_that_overtakes_a_full_one_is_the_last(server: Server, upload: XetUpload) -> None:
    for number in (0, 2, 1):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert open_uploads(server) == []


def test_a_file_that_has_the_xorbs_in_another_order_is_joined_as_usual(
    server: Server, upload: XetUpload
) -> None:
    content = b"".join(chunk for number in (0, 2, 1) for chunk in XORBS[number])
    for number in range(3):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    assert upload.shard(shard(entry([0, 2, 1], content))).json == {"result": 1}
    assert has(server, content)
    assert open_uploads(server) == []


def test_bytes_stored_early_take_no_quota_from_the_files(server: Server) -> None:
    limits = QuotaRequest(scope="namespace", name="acme", bytes=len(WEIGHTS) * 3 // 2, uploads=1)
    server.registry().quotas.set(limits)
    upload = XetUpload.start(server, token=server.token("ann", "writer", ("acme",)))
    content = b"".join(chunk for number in (0, 2, 1) for chunk in XORBS[number])
    for number in range(3):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    assert upload.shard(shard(entry([0, 2, 1], content))).json == {"result": 1}
    assert has(server, content)


def test_bytes_that_another_process_stored_early_take_no_quota_from_the_files(server: Server) -> None:
    limits = QuotaRequest(scope="namespace", name="acme", bytes=len(WEIGHTS) * 3 // 2, uploads=1)
    server.registry().quotas.set(limits)
    upload = XetUpload.start(server, token=server.token("ann", "writer", ("acme",)))
    finish_in_another_process(server, upload)


def test_a_file_that_is_stored_early_takes_no_place_from_another(server: Server) -> None:
    server.registry().quotas.set(QuotaRequest(scope="namespace", name="acme", uploads=1))
    upload = XetUpload.start(server, token=server.token("ann", "writer", ("acme",)))
    for number in range(3):
        send(upload, number)
    second = b"".join(XORBS[1])
    assert upload.shard(shard(entry([1], second), entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert has(server, second)


def test_a_file_whose_order_is_known_only_from_its_shard_is_stored_from_there_on(
    server: Server, upload: XetUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_join, "_FULL", 1 << 30)
    for number in (0, 1, 2):
        send(upload, number)
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert open_uploads(server) == []


def test_a_file_after_one_that_was_stored_early_arrives_too(server: Server, upload: XetUpload) -> None:
    for number in range(3):
        send(upload, number)
    second = b"".join(XORBS[1])
    assert upload.shard(shard(entry([1], second), entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert has(server, second)


def test_bytes_stored_early_that_do_not_have_the_announced_digest_are_not_kept(
    server: Server, upload: XetUpload
) -> None:
    for number in range(3):
        send(upload, number)
    assert upload.shard(shard(entry([0, 1, 2], "0" * 64))).status == 409
    assert open_uploads(server) == []
    assert kept(server) == []
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}


def test_bytes_stored_early_are_dropped_if_the_client_stops(
    server: Server, upload: XetUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_join, "IDLE_SECONDS", 0.05)
    send(upload, 0)
    until(lambda: (open_uploads(server), kept(server)), ([], []).__eq__)
    send(upload, 1)
    send(upload, 2)
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)


def test_a_file_whose_shard_does_not_come_is_dropped(
    server: Server, upload: XetUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client stopped, or another process of the server has the shard."""
    for number in range(3):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    monkeypatch.setattr(early_join, "IDLE_SECONDS", 0.05)
    send(upload, 1)
    until(lambda: (open_uploads(server), kept(server)), ([], []).__eq__)
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)


def test_xorbs_of_other_files_do_not_wait_once_the_first_file_is_stored(
    server: Server, upload: XetUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    monkeypatch.setattr("adaptry_api.hub.xet.incoming_xorb.TURN_SECONDS", 3600.0)
    second, hash = [random.Random(9).randbytes(CHUNK)], "12" * 32
    assert upload.xorb(b"".join(map(chunk, second)), hash).status == 200
    other = file_entry(second[0], [(hash, CHUNK, 0, 1)])
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS), other)).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert has(server, second[0])


def test_a_file_of_a_known_size_is_not_stored_early(server: Server, upload: XetUpload) -> None:
    name = AdapterName.parse(TONE)
    other = weights(1)
    uploads = server.registry().uploads
    uploads.finish(uploads.append(uploads.open(name, Digest.of(other), len(other)), 0, [other]))
    for number in range(3):
        send(upload, number)
    assert open_uploads(server) == []
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
