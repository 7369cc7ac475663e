"""Large files uploaded directly to the bucket of a server: a real S3 server, behind a proxy that injects
faults.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import urllib3

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, DigestMismatch
from adaptry.core.refs import AdapterName
from adaptry.registry.records import UploadInfo
from adaptry.storage.blobs.s3 import S3Blobs, S3Location
from adaptry.storage.connect import open_local
from adaptry.storage.local.stale_uploads import IDLE, purge
from adaptry.storage.local.uploads import DIRECT
from adaptry.testing.fault_proxy import run_proxy
from adaptry.testing.http_fault_proxy import HttpFaultProxy, HttpMessage
from adaptry.testing.seaweed import Seaweed
from adaptry_api.testing import Server

NAME = AdapterName.parse("acme/tone")
DATA = random.Random(7).randbytes(11 << 20)
PART = 5 << 20
DIGEST = Digest.of(DATA)


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[HttpFaultProxy]:
    where = urlsplit(seaweed.endpoint)
    with run_proxy(HttpFaultProxy(where.hostname or "", where.port or 0)) as proxy:
        yield proxy


@pytest.fixture
def place(s3_place: str, seaweed: Seaweed, proxy: HttpFaultProxy) -> str:
    return s3_place.replace(seaweed.endpoint, f"http://127.0.0.1:{proxy.port}")


@pytest.fixture
def server(start: Callable[..., Server], place: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("adaptry.storage.local.uploads.PART", PART)
    return start(blobs=place, presign_uploads=True)


@pytest.fixture
def opened(server: Server) -> UploadInfo:
    return server.registry().uploads.open(NAME, DIGEST, len(DATA))


def sent(upload: UploadInfo, number: int, data: bytes = DATA) -> int:
    part = upload.direct[number]
    return urllib3.request("PUT", part.address, body=data[part.start : part.start + part.size]).status


def is_direct(request: HttpMessage) -> bool:
    return ".open" in request.target


def pieces(start: int = 0) -> Iterator[bytes]:
    return (DATA[at : at + (1 << 20)] for at in range(start, len(DATA), 1 << 20))


def test_a_large_file_is_sent_to_the_bucket_in_parts_of_any_order(server: Server, opened: UploadInfo) -> None:
    registry = server.registry()
    assert [part.size for part in opened.direct] == [PART, PART, 1 << 20]
    assert [sent(opened, number) for number in (2, 0, 1)] == [200, 200, 200]
    registry.uploads.finish(opened)
    registry.uploads.finish(opened)
    assert registry.files.has(NAME, DIGEST)
    assert kept(server) == [(DIGEST, len(DATA))]


def test_small_files_and_servers_without_the_option_give_no_bucket_address(
    start: Callable[..., Server], place: str
) -> None:
    assert start(blobs=place).registry().uploads.open(NAME, DIGEST, len(DATA)).direct == ()
    assert start(presign_uploads=True).registry().uploads.open(NAME, DIGEST, DIRECT - 1).direct == ()


def test_an_address_takes_its_bytes_and_does_nothing_else(opened: UploadInfo) -> None:
    first, second, _ = opened.direct
    assert urllib3.request("PUT", first.address, body=b"short").status == 403
    assert urllib3.request("PUT", first.address, body=DATA[: first.size + 1]).status == 403
    assert sent(opened, 0) == 200
    assert urllib3.request("GET", first.address).status == 403
    assert urllib3.request("DELETE", first.address).status == 403
    elsewhere = first.address.replace(urlsplit(first.address).path, urlsplit(second.address).path)
    assert urllib3.request("PUT", elsewhere, body=DATA[: first.size]).status == 403


def test_an_upload_continues_after_the_parts_in_the_bucket(server: Server, opened: UploadInfo) -> None:
    registry = server.registry()
    sent(opened, 0)
    sent(opened, 2)
    with pytest.raises(Conflict, match=f"missing; continue at {PART}"):
        registry.uploads.finish(opened)
    again = registry.uploads.open(NAME, DIGEST, len(DATA))
    assert (again.id, again.offset, again.direct[0].start) == (opened.id, PART, PART)
    sent(again, 0)
    assert registry.uploads.open(NAME, DIGEST, len(DATA)).offset == len(DATA)
    registry.uploads.finish(again)
    assert registry.files.has(NAME, DIGEST)


def test_bytes_sent_through_the_server_and_to_the_bucket_form_one_file(
    server: Server, opened: UploadInfo
) -> None:
    registry = server.registry()
    registry.uploads.append(opened.model_copy(update={"direct": ()}), 0, [DATA[:1000]])
    again = registry.uploads.open(NAME, DIGEST, len(DATA))
    assert [part.start for part in again.direct] == [1000, 1000 + PART, 1000 + 2 * PART]
    registry.uploads.finish(registry.uploads.append(again, 1000, pieces(1000)))
    assert registry.files.has(NAME, DIGEST)


def test_other_bytes_than_were_announced_are_refused_and_nothing_is_kept(
    server: Server, opened: UploadInfo
) -> None:
    for number in range(3):
        sent(opened, number, bytes(len(DATA)))
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        server.registry().uploads.finish(opened)
    assert not server.registry().files.has(NAME, DIGEST)
    assert kept(server) == []
    assert stagings(server) == []


def test_writing_to_an_upload_address_again_does_not_change_the_published_file(
    server: Server, opened: UploadInfo
) -> None:
    for number in range(3):
        sent(opened, number)
    server.registry().uploads.finish(opened)
    assert sent(opened, 0, bytes(len(DATA))) == 200  # the address is valid for an hour, and nothing is there
    assert kept(server) == [(DIGEST, len(DATA))]
    assert swept(server) == 1
    assert stagings(server) == []


def test_a_staged_file_that_changes_while_it_is_read_is_not_published(
    server: Server, proxy: HttpFaultProxy, opened: UploadInfo
) -> None:
    for number in range(3):
        sent(opened, number)
    was_told = []

    def is_reading(request: HttpMessage) -> bool:
        """The first read of the staged bytes, during which another client overwrites them."""
        if request.method == "GET" and "/tmp/" in request.target and not was_told:
            was_told.append(request.target)
        return bool(was_told)

    proxy.arm_http("late", times=1, matches=is_reading)
    server.registry().uploads.finish(opened)
    assert was_told
    assert not any(".open" in target for target in was_told)  # it reads a copy that no client can write to
    assert kept(server) == [(DIGEST, len(DATA))]


def test_the_client_sends_directly_to_the_bucket(
    server: Server, proxy: HttpFaultProxy, opened: UploadInfo
) -> None:
    told: list[int] = []

    def counting(request: HttpMessage) -> bool:
        if is_direct(request) and request.method == "PUT":
            told.append(len(request.body))
        return False

    proxy.arm_http("failed", times=None, matches=counting)
    registry = server.registry()
    done = registry.uploads.append(opened, 0, pieces())
    assert (done.offset, sorted(told)) == (len(DATA), [1 << 20, PART, PART])
    registry.uploads.finish(done)
    assert registry.files.has(NAME, DIGEST)


@pytest.mark.parametrize("kind", ["cut_in_request", "cut_before_answer", "slow_down", "gateway_down"])
def test_a_part_that_fails_once_is_sent_again(
    server: Server, proxy: HttpFaultProxy, opened: UploadInfo, kind: str
) -> None:
    proxy.arm_http(kind, times=1, matches=is_direct)
    registry = server.registry()
    registry.uploads.finish(registry.uploads.append(opened, 0, pieces()))
    assert registry.files.has(NAME, DIGEST)


def test_a_client_that_cannot_reach_the_bucket_sends_through_the_server(
    server: Server, opened: UploadInfo
) -> None:
    with_no_way = opened.model_copy(
        update={
            "direct": tuple(
                part.model_copy(update={"address": "http://127.0.0.1:9/closed"}) for part in opened.direct
            )
        }
    )
    registry = server.registry()
    done = registry.uploads.append(with_no_way, 0, pieces())
    assert done.offset == len(DATA)
    registry.uploads.finish(done)
    assert registry.files.has(NAME, DIGEST)


def test_a_bucket_that_does_not_respond_is_skipped(
    server: Server, proxy: HttpFaultProxy, opened: UploadInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptry.registry.http.presigned._ANSWER_SECONDS", 0.2)
    proxy.arm_http("swallowed", times=None, matches=is_direct)
    registry = server.registry()
    registry.uploads.finish(registry.uploads.append(opened, 0, pieces()))
    assert registry.files.has(NAME, DIGEST)


def test_parts_that_the_bucket_refuses_go_through_the_server(
    server: Server, proxy: HttpFaultProxy, opened: UploadInfo
) -> None:
    proxy.arm_http(
        "failed", times=None, matches=lambda request: is_direct(request) and len(request.body) == 1 << 20
    )
    registry = server.registry()
    registry.uploads.finish(registry.uploads.append(opened, 0, pieces()))
    assert registry.files.has(NAME, DIGEST)


def test_bytes_sent_before_the_source_failed_are_kept(server: Server, opened: UploadInfo) -> None:
    def breaking() -> Iterator[bytes]:
        yield DATA[: PART + 1000]
        raise ConnectionResetError("the disk is gone")

    with pytest.raises(ConnectionResetError):
        server.registry().uploads.append(opened, 0, breaking())
    assert server.registry().uploads.open(NAME, DIGEST, len(DATA)).offset == PART + 1000


def test_a_server_sweeps_while_it_runs(
    start: Callable[..., Server], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptry_api.cleanup.UPLOADS_EVERY", 0.05)
    assert start(blobs=place).call("GET", "/healthz").status == 200  # its sweep at the start is over
    blobs = S3Blobs(S3Location.parse(place))
    urllib3.request("PUT", blobs.upload_url(blobs.new_key(), 0, 5, 60).url, body=b"hello")
    end = time.monotonic() + 60
    while list(blobs.stagings()):
        assert time.monotonic() < end


def test_abandoned_uploads_are_swept(server: Server, opened: UploadInfo) -> None:
    sent(opened, 1)  # not even from the beginning
    assert stagings(server)
    assert swept(server) == 0
    assert swept(server, later=IDLE + timedelta(minutes=1)) == 1
    assert stagings(server) == []


def kept(server: Server) -> list[tuple[Digest, int]]:
    """Every blob in the bucket, with its size. Fails if a blob is incomplete."""
    registry = open_local(server.data)
    found = []
    for digest in registry.blobs.digests():
        data = b"".join(registry.blobs.chunks(digest))
        assert Digest.of(data) == digest
        found.append((digest, len(data)))
    registry.close()
    return found


def stagings(server: Server) -> list[str]:
    registry = open_local(server.data)
    found = list(registry.blobs.stagings())
    registry.close()
    return found


def swept(server: Server, later: timedelta = timedelta()) -> int:
    """The number of stagings that a sweep drops after that much time."""
    registry = open_local(server.data)
    dropped = purge(registry.catalog, registry.blobs, datetime.now(UTC) + later)
    registry.close()
    return dropped
