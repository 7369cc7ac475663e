"""Chunks that an adapter already has need not be sent again, but only for that adapter."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from adaptry_api.hub.xet.chunk_maps import UNUSED_SECONDS, ChunkMaps
from adaptry_api.testing import Server, until

from .uploads import TONE, XET_CLIENT, XetUpload, create, has, kept, run_client, waiting
from .xet_bodies import XORB, chunk, file_entry, hash_bytes, shard

KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
CHUNKS = [random.Random(number).randbytes(20_000 + number) for number in range(6)]
CONTENT = b"".join(CHUNKS)
OTHER = "acme/other"


def hash_of(data: bytes) -> str:
    """The hash that names a chunk, as xet-core writes it."""
    digest = blake3(data, key=KEY).digest()
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


@pytest.fixture(autouse=True)
def adapters(server: Server) -> None:
    create(server)
    create(server, OTHER)


def send(server: Server, chunks: list[bytes], name: str = TONE, token: str = "admin") -> XetUpload:
    upload = XetUpload.start(server, name, token)
    assert upload.xorb(b"".join(map(chunk, chunks)), XORB).status == 200
    whole = b"".join(chunks)
    assert upload.shard(shard(file_entry(whole, [(XORB, len(whole), 0, len(chunks))]))).status == 200
    return upload


def ask(upload: XetUpload, data: bytes, kind: str = "default") -> list[tuple[str, list[str]]] | None:
    """The xorbs in the response, each with its chunks' hashes; None for a 404."""
    path = f"{upload.address}/v1/chunks/{kind}/{hash_of(data)}"
    answer = upload.server.call("GET", path, token=upload.token)
    if answer.status == 404:
        return None
    assert answer.status == 200, answer.body
    body, found = answer.body, []
    (at,) = struct.unpack_from("<Q", body, len(body) - 200 + 16)
    while (record := body[at : at + 48])[:32] != b"\xff" * 32:
        (count,) = struct.unpack_from("<I", record, 36)
        entries = [body[at + 48 * n : at + 48 * n + 32] for n in range(1, count + 1)]
        found.append((_text(record[:32]), [_text(entry) for entry in entries]))
        at += 48 * (count + 1)
    return found


def _text(data: bytes) -> str:
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", data))


def test_the_first_chunk_of_a_file_leads_to_all_of_its_chunks(server: Server) -> None:
    send(server, CHUNKS)
    upload = XetUpload.start(server)
    for kind in ("default", "default-merkledb"):
        found = ask(upload, CHUNKS[0], kind)
        assert found is not None
        assert [hashes for _, hashes in found] == [[hash_of(each) for each in CHUNKS]]
    assert ask(upload, CHUNKS[1]) is None, "a client asks for the first chunk, and for one of 1024"
    assert ask(upload, b"nothing of ours") is None


def test_a_file_that_refers_to_known_chunks_is_joined_from_the_stored_file(server: Server) -> None:
    send(server, CHUNKS)
    upload = XetUpload.start(server)
    ((xorb, _),) = ask(upload, CHUNKS[0]) or []
    new = random.Random(99).randbytes(30_000)
    assert upload.xorb(chunk(new), XORB).status == 200
    content = CHUNKS[0] + CHUNKS[1] + new + CHUNKS[5]
    segments = [
        (xorb, len(CHUNKS[0] + CHUNKS[1]), 0, 2),
        (XORB, len(new), 0, 1),
        (xorb, len(CHUNKS[5]), 5, 6),
    ]
    assert upload.shard(shard(file_entry(content, segments))).status == 200
    assert has(server, content)
    ((_, hashes),) = ask(XetUpload.start(server), CHUNKS[0]) or []
    assert hashes == [hash_of(each) for each in (CHUNKS[0], CHUNKS[1], new, CHUNKS[5])]


def test_only_writers_of_an_adapter_can_query_and_use_its_chunks(server: Server) -> None:
    send(server, CHUNKS)
    ((xorb, _),) = ask(XetUpload.start(server), CHUNKS[0]) or []
    whole = shard(file_entry(CONTENT, [(xorb, len(CONTENT), 0, 6)]))
    elsewhere = XetUpload.start(server, OTHER)
    assert ask(elsewhere, CHUNKS[0]) is None
    refused = elsewhere.shard(whole)
    assert (refused.status, "no such xorb" in refused.json["error"]) == (400, True)
    assert not has(server, CONTENT, OTHER)
    mine = XetUpload.start(server)
    path = f"/v1/chunks/default/{hash_of(CHUNKS[0])}"
    assert server.call("GET", mine.address + path, token=elsewhere.token).status == 403
    assert server.call("GET", elsewhere.address + path, token=mine.token).status == 403
    for token in (None, "admin", server.token("reader", "reader", ("acme",))):
        assert server.call("GET", mine.address + path, token=token).status == 401


def test_an_adapter_recreated_by_others_has_no_known_chunks(server: Server) -> None:
    send(server, CHUNKS)
    ((xorb, _),) = ask(XetUpload.start(server), CHUNKS[0]) or []
    delete = {"name": "tone", "organization": "acme"}
    assert server.call("DELETE", "/api/repos/delete", delete).status == 200
    create(server)
    upload = XetUpload.start(server)
    assert ask(upload, CHUNKS[0]) is None
    body = shard(file_entry(CONTENT, [(xorb, len(CONTENT), 0, 6)]))
    assert upload.shard(body).status == 400
    assert not has(server, CONTENT)


def test_a_claim_that_does_not_fit_the_known_chunks_is_refused(server: Server) -> None:
    send(server, CHUNKS)
    upload = XetUpload.start(server)
    ((xorb, _),) = ask(upload, CHUNKS[0]) or []
    size = len(CONTENT)
    for wrong, status in (
        ([(xorb, size, 0, 7)], 400),
        ([(xorb, size - 1, 0, 6)], 400),
        ([(f"{xorb[:56]}00000001", size, 0, 6)], 400),
        ([(f"{'0' * 56}00000000", size, 0, 6)], 400),
        ([(f"{xorb[:56]}ffffffff", size, 0, 6)], 400),
    ):
        assert upload.shard(shard(file_entry(CONTENT, wrong))).status == status
    other = shard(file_entry("0" * 64, [(xorb, len(CHUNKS[0]), 0, 1)]))
    assert upload.shard(other).status == 409
    assert ask(upload, CHUNKS[0]) is None, "after a mismatch the client is to send everything"
    send(server, CHUNKS)
    assert ask(upload, CHUNKS[0]) is not None


def test_a_damaged_chunk_map_is_ignored(server: Server) -> None:
    send(server, CHUNKS)
    (path,) = (server.data / "spools" / ".chunks").glob("acme/tone/files/*")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        path.write_bytes(damaged)
        assert ask(XetUpload.start(server), CHUNKS[0]) is None
    path.write_bytes(whole)
    assert ask(XetUpload.start(server), CHUNKS[0]) is not None


def test_chunk_hashes_are_computed_and_not_taken_from_the_client(server: Server) -> None:
    upload = XetUpload.start(server)
    lie = hash_of(CHUNKS[1])
    assert upload.xorb(chunk(CHUNKS[0]), lie).status == 200
    assert upload.shard(shard(file_entry(CHUNKS[0], [(lie, len(CHUNKS[0]), 0, 1)]))).status == 200
    again = XetUpload.start(server)
    assert ask(again, CHUNKS[1]) is None
    assert ask(again, CHUNKS[0]) is not None


def test_spooled_chunks_are_dropped_once_their_files_are_stored(server: Server) -> None:
    upload = send(server, CHUNKS)
    (spooled,) = (path for path in (server.data / "spools").glob("[!.]*/*/*") if path.name == XORB)
    until(lambda: spooled.stat().st_size, lambda size: size < 1000)
    # Another shard of the same upload may still refer to it.
    tail = CHUNKS[4] + CHUNKS[2]
    segments = [(XORB, len(CHUNKS[4]), 4, 5), (XORB, len(CHUNKS[2]), 2, 3)]
    assert upload.shard(shard(file_entry(tail, segments))).status == 200
    assert has(server, tail)


def test_unused_chunks_are_kept_for_another_shard(server: Server) -> None:
    upload = XetUpload.start(server)
    assert upload.xorb(chunk(CHUNKS[0]) + chunk(CHUNKS[1]), XORB).status == 200
    assert upload.shard(shard(file_entry(CHUNKS[0], [(XORB, len(CHUNKS[0]), 0, 1)]))).status == 200
    assert upload.shard(shard(file_entry(CHUNKS[1], [(XORB, len(CHUNKS[1]), 1, 2)]))).status == 200
    assert has(server, CHUNKS[0])
    assert has(server, CHUNKS[1])


def test_a_file_of_tiny_chunks_is_stored_and_its_map_is_not(server: Server) -> None:
    tiny = [bytes([number % 256]) for number in range(5000)]
    send(server, tiny)
    assert has(server, b"".join(tiny))
    assert list((server.data / "spools" / ".chunks").glob("*/*/files/*")) == []


def test_a_shard_cannot_name_more_chunks_than_a_whole_upload_has(server: Server) -> None:
    upload = XetUpload.start(server)
    assert upload.xorb(chunk(b"x") * 8192, XORB).status == 200
    answer = upload.shard(shard(file_entry(b"x" * 8192 * 129, [(XORB, 8192, 0, 8192)] * 129)))
    assert (answer.status, "1,048,576 chunks" in answer.json["error"]) == (413, True)


def test_chunk_maps_are_shared_by_all_servers_of_a_registry(
    start: Callable[..., Server], server: Server
) -> None:
    send(server, CHUNKS)
    beside = start()
    ((xorb, _),) = ask(XetUpload.start(beside), CHUNKS[0]) or []
    upload = XetUpload.start(server)
    part = shard(file_entry(CHUNKS[3], [(xorb, len(CHUNKS[3]), 3, 4)]))
    assert upload.shard(part).status == 200
    assert has(server, CHUNKS[3])


def test_unused_chunk_maps_are_removed_and_uploads_stay(server: Server) -> None:
    upload = send(server, CHUNKS)
    maps = ChunkMaps(server.data / "spools" / ".chunks")
    (path,) = maps.folder.glob("acme/tone/files/*")
    last = path.stat().st_mtime
    assert maps.sweep(last + UNUSED_SECONDS - 60) == 0
    assert maps.sweep(last + UNUSED_SECONDS + 60) == 2
    assert ask(upload, CHUNKS[0]) is None
    assert (has(server, CONTENT), waiting(server)) == (True, [XORB])


def test_the_unmodified_client_sends_nothing_again(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(random.Random(1).randbytes(6_000_000))
    assert run_client(server, XET_CLIENT, TONE, "main", str(file)).returncode == 0
    before = (kept(server), _received(server, 6_000_000))
    assert run_client(server, XET_CLIENT, TONE, "main", str(file)).returncode == 0
    assert kept(server) == before[0]
    assert _received(server) - before[1] < 10_000


def test_the_unmodified_client_sends_only_new_chunks(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    first = random.Random(1).randbytes(6_000_000)
    file.write_bytes(first)
    assert run_client(server, XET_CLIENT, TONE, "main", str(file)).returncode == 0
    second = first[:4_000_000] + b"something else" + first[4_000_000:]
    file.write_bytes(second)
    before = _received(server, len(first))
    assert run_client(server, XET_CLIENT, TONE, "main", str(file)).returncode == 0
    assert has(server, second)
    assert _received(server) - before < 1_000_000


def _received(server: Server, least: int = 0) -> float:
    """The number of bytes of request bodies, once it has reached that many: the server counts them after its
    responses.
    """

    def read() -> float:
        text = server.call("GET", "/metrics", token=None).body.decode()
        (line,) = (line for line in text.splitlines() if line.startswith("adaptry_received_bytes_total "))
        return float(line.split()[1])

    return until(read, lambda count: count >= least)


def test_hashes_are_written_as_the_protocol_does() -> None:
    assert hash_bytes(hash_of(b"abc")) == blake3(b"abc", key=KEY).digest()
