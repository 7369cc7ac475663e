"""Uploads by Git LFS: those of huggingface_hub, in one piece and in parts, and requests that are refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest

from adaptry.core.digest import Digest
from adaptry.core.files.locks import locked, unlock
from adaptry.core.manifest import MAX_FILE
from adaptry.core.refs import AdapterName
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.storage.tokens import hash_token
from adaptry_api.hub.lfs_objects import PutGrant
from adaptry_api.hub.lfs_parts import PartGrant
from adaptry_api.signed_grants import GrantSigner
from adaptry_api.testing import RawResponse, Server

from .uploads import LFS_CLIENT, TONE, create, has, kept, path_of, run_client, waiting

LFS = {"Content-Type": "application/vnd.git-lfs+json"}
CONTENT = random.Random(7).randbytes(3_500_000)
OID = hashlib.sha256(CONTENT).hexdigest()
PART = 1_000_000


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    """A server that accepts parts of a megabyte."""
    server = start(whole_bytes=PART, part_bytes=PART)
    create(server)
    return server


def batch(server: Server, token: str = "admin", name: str = TONE, **other: Any) -> RawResponse:
    asked = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": OID, "size": len(CONTENT)}]}
    return server.call(
        "POST", f"/{name}.git/info/lfs/objects/batch", {**asked, **other}, token=token, headers=LFS
    )


def whole(server: Server, **other: Any) -> str:
    """The address for the file in one piece."""
    return path_of(batch(server, **other).json["objects"][0]["actions"]["upload"]["href"])


def parts(server: Server) -> tuple[list[str], str]:
    """The address for each part, and the address that completes the upload."""
    upload = batch(server, transfers=["basic", "multipart"]).json["objects"][0]["actions"]["upload"]
    header = upload["header"]
    assert header.pop("chunk_size") == str(PART)
    return [path_of(header[str(number)]) for number in range(1, len(header) + 1)], path_of(upload["href"])


def put(server: Server, path: str, body: bytes) -> RawResponse:
    """Sends bytes as clients do: without a token and without a content type."""
    return server.call("PUT", path, body, token=None)


def part(number: int) -> bytes:
    return CONTENT[(number - 1) * PART : number * PART]


def join(server: Server, path: str, numbers: list[int], oid: str = OID) -> RawResponse:
    said = {"oid": oid, "parts": [{"partNumber": number, "etag": '"x"'} for number in numbers]}
    return server.call("POST", path, said, token=None, headers=LFS)


@pytest.mark.parametrize(("size", "way"), [(PART, "whole"), (len(CONTENT), "parts")])
def test_a_received_file_is_not_requested_again(server: Server, tmp_path: Path, size: int, way: str) -> None:
    (tmp_path / "weights").write_bytes(CONTENT[:size])
    run = run_client(server, LFS_CLIENT, TONE, str(tmp_path / "weights"))
    assert (run.returncode, run.stdout) == (0, f"{way}\n"), run.stderr
    assert (has(server, CONTENT[:size]), waiting(server)) == (True, [])


def test_a_file_is_stored_although_another_request_locks_it_between_its_bytes_and_its_end(
    server: Server,
) -> None:
    """Every request that opens an upload of the same file locks it for a moment."""
    stagings, ended = server.data / "blobs" / "tmp", Event()

    def lock_each_once() -> None:
        locked_before: set[Path] = set()
        while not ended.is_set():
            for path in set(stagings.iterdir()) - locked_before:
                with suppress(FileNotFoundError):
                    descriptor = locked(path, partial(os.open, path, os.O_RDWR))
                    locked_before.add(path)
                    for _ in range(2000):  # for some milliseconds
                        os.fstat(descriptor)
                    unlock(descriptor)

    with ThreadPoolExecutor() as pool:
        locking = pool.submit(lock_each_once)
        try:
            for seed in range(10):
                content = random.Random(seed).randbytes(PART - 1)
                sent = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
                address = whole(server, objects=[sent])
                answer = put(server, address, content)
                assert answer.status in (200, 503), answer.body
                assert answer.status == 200 or put(server, address, content).status == 200, "as clients do"
                assert has(server, content)
        finally:
            ended.set()
        locking.result()


def test_a_client_without_support_for_parts_sends_the_file_whole(server: Server) -> None:
    address = whole(server)
    assert put(server, address, CONTENT).status == 200
    assert put(server, address, CONTENT).status == 200
    assert has(server, CONTENT)


def test_files_of_another_adapter_must_be_uploaded_again(server: Server) -> None:
    create(server, "acme/other")
    assert put(server, whole(server), CONTENT).status == 200
    assert "actions" in batch(server, name="acme/other").json["objects"][0]


def test_parts_arrive_in_any_order_and_repeatedly(server: Server) -> None:
    addresses, end = parts(server)
    for number in (4, 2, 2, 1, 3):
        answer = put(server, addresses[number - 1], part(number))
        assert (answer.status, bool(answer.headers["ETag"])) == (200, True)
    assert join(server, end, [2, 1, 4, 3]).status == 200
    assert join(server, end, [1, 2, 3, 4]).status == 200
    assert (has(server, CONTENT), waiting(server)) == (True, [])


def test_parts_may_be_joined_many_times_at_once(server: Server) -> None:
    """A client does this if it loses a response and asks again while the first call is still running."""
    addresses, end = parts(server)
    for number in (1, 2, 3, 4):
        put(server, addresses[number - 1], part(number))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: join(server, end, [1, 2, 3, 4]), range(6)))
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"{}")] * 6
    assert (has(server, CONTENT), waiting(server)) == (True, [])


def test_a_file_is_not_joined_while_a_part_is_missing(server: Server) -> None:
    addresses, end = parts(server)
    for number in (1, 2, 4):
        put(server, addresses[number - 1], part(number))
    assert join(server, end, [1, 2, 4]).status == 400
    assert join(server, end, [1, 2, 3, 3]).status == 400
    assert join(server, end, [1, 2, 3, 4], oid="0" * 64).status == 400
    missing = join(server, end, [1, 2, 3, 4])
    assert (missing.status, "part 3 is missing" in missing.json["error"]) == (409, True)
    assert kept(server) == []
    put(server, addresses[2], part(3))
    assert join(server, end, [1, 2, 3, 4]).status == 200
    assert has(server, CONTENT)


def test_other_bytes_than_were_announced_are_refused_and_not_kept(server: Server) -> None:
    tampered = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    refused = put(server, whole(server), tampered)
    assert (refused.status, "changed in transit" in refused.json["error"]) == (409, True)
    addresses, end = parts(server)
    for number, address in enumerate(addresses, 1):
        put(server, address, part(number) if number != 2 else part(2)[::-1])
    assert join(server, end, [1, 2, 3, 4]).status == 409
    assert kept(server) == []
    assert put(server, whole(server), CONTENT).status == 200
    assert has(server, CONTENT)


def test_a_body_of_another_size_than_was_agreed_on_is_not_read(server: Server) -> None:
    address, (first, *_) = whole(server), parts(server)[0]
    for path, body in ((address, CONTENT), (first, part(1))):
        assert put(server, path, body[:-1]).status == 400
        assert put(server, path, body + b"x").status == 413
    assert (kept(server), waiting(server)) == ([], [])


def test_a_file_whose_connection_was_cut_is_accepted_when_it_is_sent_again(server: Server) -> None:
    where, address = urlsplit(server.url), whole(server)
    with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
        head = f"PUT {address} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        connection.sendall(head.encode() + CONTENT[:2_000_000])
    assert put(server, address, CONTENT).status == 200
    assert has(server, CONTENT)


def test_an_altered_expired_or_foreign_upload_address_is_refused(server: Server) -> None:
    address = whole(server)
    signer = GrantSigner(server.data / "upload-secret")
    about: dict[str, Any] = {"name": AdapterName.parse(TONE), "by": hash_token(server.admin)}
    file = {"digest": Digest(OID), "size": len(CONTENT)}
    now = int(time.time())
    late = signer.sign(PutGrant(**about, **file, until=now - 1))
    one = signer.sign(PartGrant(**about, until=now + 60, spool="0" * 64, number=1, length=len(CONTENT)))
    grant = address.partition("grant=")[2]
    altered = grant.replace(grant[:20], grant[:19] + ("A" if grant[19] != "A" else "B"))
    for wrong in ("", "x", late, one, altered, grant[:-2], grant + "A", f"{grant}.{grant}", "%00", "é" * 20):
        answer = put(server, f"/api/lfs/objects?grant={wrong}", CONTENT)
        assert answer.status == 401, wrong
    assert put(server, f"/api/lfs/parts?grant={grant}", CONTENT).status == 401
    assert join(server, f"/api/lfs/parts?grant={grant}", [1]).status == 401
    assert (kept(server), waiting(server)) == ([], [])


def test_an_upload_address_is_invalid_once_its_token_is_revoked(server: Server) -> None:
    token = server.token("leaving", "writer", ("acme",))
    address = whole(server, token=token)
    assert server.call("POST", "/api/v1/tokens/revoke", {"token": token}, token=None).status == 202
    answer = put(server, address, CONTENT)
    assert (answer.status, kept(server)) == (401, [])
    assert "revoked" in answer.json["error"]
    assert "X-Error-Code" not in answer.headers


def test_only_writers_get_an_upload_address(server: Server) -> None:
    reader, stranger = server.token("r", "reader", ("acme",)), server.token("s", "writer", ("elsewhere",))
    assert batch(server, token=reader).status == 403
    for answer in (batch(server, token=stranger), batch(server, name="acme/nothing")):
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_a_file_that_is_too_large_is_refused_alone(server: Server) -> None:
    objects = [{"oid": OID, "size": len(CONTENT)}, {"oid": "0" * 64, "size": MAX_FILE + 1}]
    fine, large = batch(server, objects=objects).json["objects"]
    assert "actions" in fine
    assert (large["error"]["code"], "8 GiB" in large["error"]["message"]) == (422, True)


def test_a_malformed_batch_or_a_download_batch_is_refused(server: Server) -> None:
    assert batch(server, operation="download").status == 400
    for wrong in (
        {"operation": "steal"},
        {"hash_algo": "md5"},
        {"objects": [{"oid": "../x", "size": 1}]},
        {"objects": [{"oid": OID, "size": -1}]},
        {"objects": [{"oid": OID}] * 2},
        {"objects": [{"oid": OID, "size": 1}] * 1025},
    ):
        assert batch(server, **wrong).status == 400, wrong
    path = f"/{TONE}.git/info/lfs/objects/batch"
    assert server.call("POST", path, b"[]", headers=LFS).status == 400
    text = {"Content-Type": "text/plain"}
    assert server.call("POST", path, json.dumps({}).encode(), headers=text).status == 400


def test_a_file_is_verified_once_it_is_here(server: Server) -> None:
    def verify() -> int:
        path = f"/{TONE}.git/info/lfs/objects/verify"
        return server.call("POST", path, {"oid": OID, "size": len(CONTENT)}).status

    assert verify() == 404
    assert put(server, whole(server), CONTENT).status == 200
    assert verify() == 200


def test_a_full_namespace_responds_with_a_time_to_retry(server: Server) -> None:
    registry = server.registry()
    name = AdapterName.parse(TONE)
    opened = [
        registry.uploads.open(name, Digest.of(bytes([number])), 1) for number in range(MAX_OPEN_UPLOADS)
    ]
    where = whole(server)
    answer = server.call("PUT", where, CONTENT, token=None)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 20
    registry.uploads.drop(opened[0].id)
    assert server.call("PUT", where, CONTENT, token=None).status == 200
    assert has(server, CONTENT)
