"""Which Xet uploads are refused, by which component, and that no part of a refused upload is stored."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import lz4.frame
import pytest

from adaptry.core.refs import AdapterName
from adaptry.storage.tokens import hash_token
from adaptry_api.hub.lfs_objects import PutGrant
from adaptry_api.hub.xet_upload import XetGrant
from adaptry_api.signed_grants import GrantSigner
from adaptry_api.testing import Server

from .uploads import TONE, XetUpload, create, has, kept, waiting
from .xet_bodies import XORB, chunk, file_entry, header, shard

FIRST, SECOND = bytes(range(256)) * 100, b"0123456789abcdef" * 1000
GOOD = chunk(FIRST) + chunk(SECOND, scheme=2)
BOTH = (XORB, len(FIRST + SECOND), 0, 2)
BOMB = lz4.frame.compress(bytes(64 << 20), store_size=False)[: 128 << 10]

NO_XORBS = [
    (b"", "empty"),
    (GOOD[:-1], "ends inside chunk 1"),
    (GOOD[: len(FIRST) + 12], "inside the header"),
    (chunk(FIRST, version=1), "version 1"),
    (header(4, 3, 4) + b"data", "scheme 3"),
    (header(4, 0, 5) + b"data", "declares 4 packed and 5 unpacked bytes"),
    (header(0, 1, 5), "declares 0 packed and 5 unpacked bytes"),
    (header(3, 1, 0) + b"abc", "declares 3 packed and 0 unpacked bytes"),
    (header(20, 1, 10) + bytes(20), "declares 20 packed and 10 unpacked bytes"),
    (header(10, 1, (128 << 10) + 1) + bytes(10), "131,073"),
    (header(0xFFFFFF, 0, 0xFFFFFF), "16,777,215"),
    (header(19, 1, 4000) + b"not valid LZ4 data.", "not valid LZ4 data"),
    (header(len(BOMB), 1, 128 << 10) + BOMB, "does not unpack to the 131,072"),
    (chunk(bytes(50_000), scheme=1, length=49_999), "does not unpack to the 49,999"),
    (chunk(bytes(50_000), scheme=2, length=50_001), "does not unpack to the 50,001"),
    (b"PK\3\4" + bytes(2000), "version 80"),
]
NO_SHARDS = [
    (b"", 400, "ends before"),
    (shard(tag=bytes(32)), 400, "not a shard"),
    (shard(version=3), 400, "not one of version 2"),
    (shard(file_entry(FIRST, [BOTH]))[:200], 400, "ends before"),
    (shard(file_entry(FIRST, [BOTH], flags=0)), 400, "has no SHA-256"),
    (shard(file_entry(FIRST, [])), 400, "is empty"),
    (shard(file_entry(FIRST, [], count=65_537)), 413, "65,536"),
    (shard(*[file_entry(FIRST, [BOTH])] * 257), 413, "256 files"),
    (shard(file_entry(FIRST, [("cd" * 32, len(FIRST), 0, 1)])), 400, "no such xorb"),
    (shard(file_entry(FIRST, [(XORB, len(FIRST), 0, 3)])), 400, "2 chunks"),
    (shard(file_entry(FIRST, [(XORB, len(FIRST), 1, 1)])), 400, "2 chunks"),
    (shard(file_entry(FIRST, [(XORB, len(FIRST), 0xFFFFFFFF, 1)])), 400, "2 chunks"),
    (shard(file_entry(FIRST, [(XORB, len(FIRST) - 1, 0, 1)])), 400, f"have {len(FIRST):,}"),
    (shard(file_entry(FIRST, [(XORB, 0xFFFFFFFF, 0, 1)] * 5)), 413, "16 GiB"),
    (shard(file_entry(FIRST, [(XORB, 0xFFFFFFFF, 0, 1)] * 3)), 413, "8 GiB"),
    (shard(file_entry("0" * 64, [BOTH])), 409, "changed in transit"),
]


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    create(server)


@pytest.fixture
def upload(server: Server) -> XetUpload:
    return XetUpload.start(server)


@pytest.fixture
def sent(upload: XetUpload) -> XetUpload:
    """An upload to which a valid xorb was sent."""
    assert upload.xorb(GOOD, XORB).json == {"was_inserted": True}
    return upload


def said(upload: XetUpload, body: bytes) -> list[dict[str, object]]:
    """The frames of a response from the second version of the address for shards."""
    answer = upload.post("/v2/shards", body)
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()]


def test_chunks_of_every_kind_are_joined_into_the_files_that_a_shard_describes(
    server: Server, sent: XetUpload
) -> None:
    files = [
        file_entry(SECOND + FIRST, [(XORB, len(SECOND), 1, 2), (XORB, len(FIRST), 0, 1)]),
        file_entry(FIRST + SECOND, [BOTH], flags=1 << 30),
    ]
    assert sent.shard(shard(*files)).json == {"result": 1}
    assert sent.post("/shards", shard(file_entry(SECOND, [(XORB, len(SECOND), 1, 2)]))).status == 200
    assert all(has(server, content) for content in (SECOND + FIRST, FIRST + SECOND, SECOND))


def test_the_second_version_reports_progress_and_the_end(server: Server, sent: XetUpload) -> None:
    frames = said(
        sent, shard(file_entry(FIRST + SECOND, [BOTH]), file_entry(FIRST, [(XORB, len(FIRST), 0, 1)]))
    )
    assert frames == [
        {"type": "validating", "verified": 1, "total": 2},
        {"type": "validating", "verified": 2, "total": 2},
        {"type": "result"},
    ]
    assert has(server, FIRST + SECOND)


def test_a_footer_and_a_repeated_xorb_are_accepted(server: Server, sent: XetUpload) -> None:
    assert sent.xorb(GOOD + b"XETBLOB\1" + bytes(5000), XORB).status == 200
    assert sent.shard(shard(file_entry(FIRST + SECOND, [BOTH]))).status == 200
    assert has(server, FIRST + SECOND)


def test_a_malformed_xorb_is_refused_and_not_kept(server: Server, upload: XetUpload) -> None:
    for body, why in NO_XORBS:
        answer = upload.xorb(body, XORB)
        assert (answer.status, why in answer.json["error"]) == (400, True), (why, answer.body)
    assert waiting(server) == []


def test_a_small_body_cannot_become_a_large_xorb(server: Server, upload: XetUpload) -> None:
    much = chunk(bytes(128 << 10), scheme=1) * 513
    assert len(much) < 1 << 20
    assert upload.xorb(much, XORB).status == 413
    assert upload.xorb(chunk(b"x") * 8193, XORB).status == 413
    assert upload.xorb(chunk(b"x") * 8192, XORB).status == 200
    assert waiting(server) == [XORB]


def test_a_body_without_a_length_or_with_too_large_a_length_is_not_read(
    server: Server, upload: XetUpload
) -> None:
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    headers = {"Authorization": f"Bearer {upload.token}"}
    path = f"{upload.address}/v1/xorbs/default/{XORB}"
    try:
        connection.request("POST", path, iter([GOOD]), headers, encode_chunked=True)
        assert connection.getresponse().status == 400
        connection.close()
        connection.putrequest("POST", path)
        for name, value in (headers | {"Content-Length": str(70 << 20)}).items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413
    finally:
        connection.close()
    assert waiting(server) == []


def test_the_name_of_a_xorb_is_a_hash_and_nothing_else(server: Server, upload: XetUpload) -> None:
    for name in ("finished", "..", "%2e%2e%2fx", "AB" * 32, "ab" * 31, "ab" * 33):
        assert upload.post(f"/v1/xorbs/default/{name}", GOOD).status in (400, 404)
    assert waiting(server) == []


def test_a_shard_that_does_not_match_is_refused_with_the_reason(server: Server, sent: XetUpload) -> None:
    for body, status, why in NO_SHARDS:
        answer = sent.shard(body)
        assert (answer.status, why in answer.json["error"]) == (status, True), (why, answer.body)
        last = said(sent, body)[-1]
        assert (last["type"], last["retryable"], why in str(last["message"])) == ("error", False, True), why
    assert (kept(server), waiting(server)) == ([], [XORB])


def test_a_refused_file_can_be_sent_again_correctly(server: Server, sent: XetUpload) -> None:
    wrong = file_entry(SECOND, [(XORB, len(FIRST), 0, 1)])
    assert sent.shard(shard(wrong)).status == 409
    assert sent.shard(shard(file_entry(SECOND, [(XORB, len(SECOND), 1, 2)]))).status == 200
    assert has(server, SECOND)


def test_a_new_token_of_the_same_caller_may_use_an_older_upload_address(
    server: Server, sent: XetUpload
) -> None:
    newer = XetUpload(server, XetUpload.start(server).token, sent.address)
    assert newer.shard(shard(file_entry(FIRST + SECOND, [BOTH]))).status == 200
    assert has(server, FIRST + SECOND)


def test_any_process_of_a_server_continues_anothers_upload(
    start: Callable[..., Server], server: Server, sent: XetUpload
) -> None:
    beside = XetUpload(start(), sent.token, sent.address)
    assert beside.shard(shard(file_entry(FIRST + SECOND, [BOTH]))).status == 200
    assert has(server, FIRST + SECOND)


def test_chunks_of_other_uploads_cannot_be_referenced(server: Server, sent: XetUpload) -> None:
    again = XetUpload.start(server)
    assert again.address != sent.address
    assert "no such xorb" in again.shard(shard(file_entry(FIRST + SECOND, [BOTH]))).json["error"]


def test_an_upload_address_is_valid_for_one_adapter_and_one_token(server: Server, sent: XetUpload) -> None:
    create(server, "acme/other")
    other = XetUpload.start(server, "acme/other")
    colleague = XetUpload.start(server, token=server.token("colleague", "writer", ("acme",)))
    body = shard(file_entry(FIRST + SECOND, [BOTH]))
    for stranger in (other, colleague):
        for path in ("/v1/shards", "/v2/shards", f"/v1/xorbs/default/{XORB}"):
            assert server.call("POST", sent.address + path, body, token=stranger.token).status == 403
    invented = "/xet/" + "0" * 64
    assert server.call("POST", f"{invented}/v1/shards", body, token=sent.token).status == 403
    assert kept(server) == []


def test_an_altered_expired_or_foreign_token_is_refused(server: Server, sent: XetUpload) -> None:
    signer = GrantSigner(server.data / "upload-secret")
    about = {"name": AdapterName.parse(TONE), "by": hash_token(server.admin)}
    late = XetGrant(**about, until=int(time.time()) - 1)
    other = PutGrant(**about, until=int(time.time()) + 60, digest="sha256:" + "0" * 64, size=1)
    forged = GrantSigner(server.data.parent / "another-secret").sign(
        XetGrant(**about, until=int(time.time()) + 60)
    )
    swapped = "A" + sent.token[1:]
    for token in (
        None,
        "",
        server.admin,
        signer.sign(late),
        signer.sign(other),
        forged,
        swapped,
        "é",
        "a" * 9000,
    ):
        headers = {"Authorization": f"Bearer {token}".encode().decode("latin-1")} if token else {}
        answer = server.call("POST", f"{sent.address}/v1/shards", b"", token=None, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_upload_stops_when_the_token_that_it_was_begun_with_is_revoked(server: Server) -> None:
    token = server.token("leaving", "writer", ("acme",))
    upload = XetUpload.start(server, token=token)
    assert upload.xorb(GOOD, XORB).status == 200
    assert server.call("POST", "/api/v1/tokens/revoke", {"token": token}, token=None).status == 202
    body = shard(file_entry(FIRST + SECOND, [BOTH]))
    assert upload.shard(body).status == 401
    framed = upload.post("/v2/shards", body)  # clients show only this frame of the response
    assert (framed.status, framed.json["type"], framed.json["retryable"]) == (200, "error", False)
    assert "unknown or revoked" in framed.json["message"]
    assert not has(server, FIRST + SECOND)
    assert upload.post("/v2/shards", body, token="admin").status == 401


def test_only_writers_get_an_upload_token(server: Server) -> None:
    def ask(name: str, token: str | None) -> tuple[int, str | None]:
        answer = server.call("GET", f"/api/models/{name}/xet-write-token/main", token=token)
        return answer.status, answer.headers.get("X-Error-Code")

    assert ask(TONE, server.token("reader", "reader", ("acme",))) == (403, None)
    assert ask(TONE, server.token("stranger", "writer", ("elsewhere",))) == (404, "RepoNotFound")
    assert ask("acme/nothing", "admin") == (404, "RepoNotFound")
    assert ask("gpt2/..", "admin") == (404, "RepoNotFound")
    assert ask(TONE, None)[0] == 401


def test_the_token_is_in_the_headers_too_where_older_clients_look(server: Server) -> None:
    answer = server.call("GET", f"/api/models/{TONE}/xet-write-token/main")
    assert answer.headers["X-Xet-Access-Token"] == answer.json["accessToken"]
    assert int(answer.headers["X-Xet-Token-Expiration"]) == answer.json["exp"] > time.time() + 600
    assert answer.headers["X-Xet-Cas-Url"] == answer.json["casUrl"]
    assert answer.json["casUrl"].startswith(f"{server.url}/xet/")


def test_optional_routes_are_absent_and_clients_continue_without_them(sent: XetUpload) -> None:
    assert sent.post(f"/v1/xorb-grants/default/{XORB}", b"").status == 404
    for kind in ("default", "default-merkledb"):
        path = f"{sent.address}/v1/chunks/{kind}/{XORB}"
        assert sent.server.call("GET", path, token=sent.token).status == 404
    assert sent.server.call("POST", "/v1/telemetry", {}, token=sent.token).status == 404
