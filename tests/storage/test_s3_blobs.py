"""Blobs in a bucket of a real S3 server: behaviour that differs from a folder's."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from adaptry.adapters.adapter import open_content, open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, Unavailable
from adaptry.core.manifest import FileEntry, Manifest
from adaptry.storage.blobs.s3 import S3Blobs, S3Location
from adaptry.storage.blobs.s3.capabilities import find_missing_capabilities
from adaptry.storage.blobs.s3.objects import S3Object
from adaptry.storage.blobs.s3.segments import SEGMENT, StagedSegment, chain, new_name, parts
from adaptry.storage.local.blob_content import BlobContent
from adaptry.testing.fault_proxy import FaultProxy, run_proxy
from adaptry.testing.http_fault_proxy import HttpFaultProxy
from adaptry.testing.samples import tiny_lora

KEY = "0123456789abcdef" * 2


@pytest.fixture(params=["s3_place", pytest.param("ceph_place", marks=pytest.mark.heavy)])
def place(request: pytest.FixtureRequest) -> S3Location:
    return S3Location.parse(request.getfixturevalue(request.param))


def test_a_blob_of_many_segments_is_joined_in_order(place: S3Location) -> None:
    blobs = S3Blobs(place)
    data = random.Random(1).randbytes(2 * SEGMENT + 12345)
    sizes = (100, 3 << 20, SEGMENT + 1, 7)  # sessions that end in small segments, complete ones, and a rest
    at = 0
    for size in (*sizes, len(data) - sum(sizes)):
        with blobs.staging(KEY) as staged:
            staged.append(at, [data[at : at + size]])
        at += size
        assert blobs.staged_size(KEY) == at
    with blobs.staging(KEY) as staged:
        staged.publish(Digest.of(data))
    assert b"".join(blobs.chunks(Digest.of(data))) == data
    assert b"".join(blobs.chunks(Digest.of(data), SEGMENT - 5)) == data[SEGMENT - 5 :]
    assert list(blobs.objects.list_objects("tmp/")) == []


def test_another_process_continues_after_a_crash_and_hashes_the_staged_bytes(place: S3Location) -> None:
    data = os.urandom(SEGMENT + 1000)
    with S3Blobs(place).staging(KEY) as staged:
        staged.append(0, [data[: SEGMENT + 10]])
    other = S3Blobs(place)
    assert other.staged_size(KEY) == SEGMENT + 10
    with other.staging(KEY) as staged:
        staged.append(SEGMENT + 10, [data[SEGMENT + 10 :]])
        staged.publish(Digest.of(data))
    assert b"".join(other.chunks(Digest.of(data))) == data


def test_a_staging_has_one_writer_among_all_processes(place: S3Location) -> None:
    first, second = S3Blobs(place), S3Blobs(place)
    with first.staging(KEY):
        assert second.is_held(KEY)
        with pytest.raises(Conflict, match="another process"):
            second.staging(KEY)
    assert not second.is_held(KEY)


def test_two_writers_with_a_lost_lease_never_mix_bytes(place: S3Location) -> None:
    first, second = S3Blobs(place), S3Blobs(place)
    with first.staging(KEY) as mine:
        first.objects.delete([f"tmp/{KEY}.lease"])
        with second.staging(KEY) as theirs:
            theirs.append(0, [b"other bytes"])
        mine.append(0, [b"my bytes"])
        mine.publish(Digest.of(b"my bytes"))
    assert b"".join(second.chunks(Digest.of(b"my bytes"))) == b"my bytes"


def test_a_hash_counts_only_for_the_segments_it_was_computed_from(place: S3Location) -> None:
    first, second = S3Blobs(place), S3Blobs(place)
    with first.staging(KEY) as mine:
        mine.append(0, [b"my bytes"])
    with second.staging(KEY) as theirs:
        theirs.discard()
    with second.staging(KEY) as theirs:
        theirs.append(0, [b"XX bytes"])
    with first.staging(KEY) as mine:
        mine.append(8, [b"!"])
        with pytest.raises(Conflict, match="nothing was kept"):
            mine.publish(Digest.of(b"my bytes!"))
    assert not first.has(Digest.of(b"my bytes!"))


def test_an_abandoned_lease_expires(place: S3Location, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, living = S3Blobs(place), S3Blobs(place)
    dead.staging(KEY)  # and never persisted
    monkeypatch.setattr("adaptry.storage.blobs.s3.lease.LEASE_SECONDS", -1.0)
    with living.staging(KEY) as staged:
        staged.append(0, [b"mine"])
        staged.publish(Digest.of(b"mine"))
    assert living.has(Digest.of(b"mine"))


def test_a_missing_bucket_is_reported(place: S3Location) -> None:
    blobs = S3Blobs(replace(place, bucket="no-such-bucket"))
    with pytest.raises(Unavailable, match="there is no bucket no-such-bucket; create it"):
        blobs.require_room(1)


def test_refused_credentials_are_reported(place: S3Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Unavailable, match="refuses these credentials"):
        S3Blobs(place).require_room(1)


def test_a_missing_server_is_reported(place: S3Location) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        S3Blobs(replace(place, endpoint="http://127.0.0.1:9")).has(Digest.of(b""))


def test_a_malformed_key_opens_no_staging(place: S3Location) -> None:
    with pytest.raises(NotFound, match="no such upload"):
        S3Blobs(place).staging("../sha256")


def test_segments_of_one_staging_make_one_run_from_the_start() -> None:
    found = [
        S3Object(new_name(KEY, start), size, 0.0) for start, size in ((0, 5), (0, 8), (8, 2), (9, 4), (20, 1))
    ]
    assert [(one.start, one.size) for one in chain(found)] == [(0, 8), (8, 2)]


def test_parts_are_large_enough_but_for_the_last() -> None:
    row = [StagedSegment("", 0, size) for size in (3, 8, 8, 2, 2, 8, 1)]
    assert [[one.size for one in group] for group in parts(row, 5)] == [[3, 8], [8], [2, 2, 8], [1]]


def test_an_s3_address_gives_bucket_and_prefix() -> None:
    assert S3Location.parse("s3://adapters") == S3Location("adapters")
    assert S3Location.parse("s3://adapters?public=https://f").public == "https://f"
    place = S3Location.parse(
        "s3://adapters/a/b/?endpoint=http://h:1&region=r&addressing=path&sse=aws:kms&kms-key=k"
    )
    assert place == S3Location("adapters", "a/b/", "http://h:1", "r", "path", "aws:kms", "k")
    assert place.encryption == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}
    assert str(place) == "s3://adapters/a/b"


@pytest.mark.parametrize(
    "text",
    ["adapters", "s3://", "s3://Upper", "s3://bucket/../x", "s3://bucket?typo=1", "s3://bucket?addressing=x",
     "s3://bucket?sse=rot13", "s3://bucket?endpoint=host:8333", "s3://bucket?public=http://user:secret@h",
     "https://bucket/x", "s3://user:secret@bucket/x", "s3://bucket//a//b"],
)  # fmt: skip
def test_a_malformed_blob_location_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        S3Location.parse(text)
    assert "secret" not in refused.value.message


def test_an_abandoned_multipart_upload_is_aborted_after_a_day(
    place: S3Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = S3Blobs(place)
    blobs.objects.client.create_multipart_upload(**blobs.objects.key_params("sha256/ab/abandoned"))
    assert blobs.tidy() == 0
    monkeypatch.setattr("adaptry.storage.blobs.s3.store._ABANDONED", -1.0)
    assert blobs.tidy() == 1
    assert blobs.tidy() == 0


def test_a_server_is_examined_by_trying_it(place: S3Location) -> None:
    missing = find_missing_capabilities(place)
    assert not missing or "at the end of a multipart upload" in missing[0]
    assert list(S3Blobs(place).objects.list_objects("")) == []
    with pytest.raises(Unavailable, match="there is no bucket"):
        find_missing_capabilities(replace(place, bucket="no-such-bucket"))


def test_no_missing_features_are_reported_for_a_complete_server(s3_place: str) -> None:
    assert find_missing_capabilities(S3Location.parse(s3_place)) == ()


def test_a_server_without_conditional_writes_is_reported(place: S3Location) -> None:
    where = urlsplit(place.endpoint or "")
    with run_proxy(HttpFaultProxy(where.hostname or "", where.port or 0)) as proxy:
        proxy.arm_http(
            "not_implemented", times=None, matches=lambda request: b"If-None-Match" in request.head
        )
        assert find_missing_capabilities(replace(place, endpoint=f"http://127.0.0.1:{proxy.port}")) == (
            "it has no conditional writes (501): every upload needs one more request",
        )


@pytest.mark.heavy
def test_missing_features_of_a_server_are_described_in_a_sentence(ceph_place: str) -> None:
    (missing,) = find_missing_capabilities(S3Location.parse(ceph_place))
    assert "it ignores If-None-Match at the end of a multipart upload" in missing


def test_a_presigned_url_gives_access_to_one_blob_for_a_limited_time(place: S3Location) -> None:
    blobs = S3Blobs(place)
    digest = Digest.of(b"hello")
    blobs.put(digest, [b"hello"])
    address = blobs.download_url(digest, "adapter_model.safetensors", 60)
    answer = urllib3.request("GET", address, headers={"Range": "bytes=1-2"})
    assert (answer.status, answer.data) == (206, b"el")
    assert "adapter_model.safetensors" in answer.headers["Content-Disposition"]
    other = Digest.of(b"other")
    blobs.put(other, [b"other"])
    assert urllib3.request("GET", address.replace(digest.hex, other.hex)).status == 403
    assert urllib3.request("DELETE", address).status == 403


def test_a_presigned_url_accepts_the_exact_size_and_its_bytes_are_staged(place: S3Location) -> None:
    blobs = S3Blobs(place)
    data = os.urandom(100_000)
    first, second = (blobs.upload_url(KEY, *run, 60).url for run in ((0, 60_000), (60_000, 40_000)))
    assert urllib3.request("PUT", first, body=data[:59_999]).status == 403
    assert urllib3.request("PUT", first, body=data[:60_001]).status == 403
    assert urllib3.request("GET", first).status == 403
    assert blobs.staged_size(KEY) == 0
    assert urllib3.request("PUT", second, body=data[60_000:]).status == 200
    assert blobs.staged_size(KEY) == 0
    assert urllib3.request("PUT", first, body=data[:60_000]).status == 200
    assert blobs.staged_size(KEY) == len(data)
    with blobs.staging(KEY) as staged:
        staged.publish(Digest.of(data))
    assert b"".join(blobs.chunks(Digest.of(data))) == data
    assert list(blobs.objects.list_objects("tmp/")) == []


def test_bytes_written_by_presigned_url_are_copied_before_they_are_hashed(
    place: S3Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the address writes other bytes there as soon as the first are read."""
    blobs = S3Blobs(place)
    data = os.urandom(SEGMENT)
    address = blobs.upload_url(KEY, 0, len(data), 60).url
    urllib3.request("PUT", address, body=data)
    read = blobs.objects.read

    def read_and_be_betrayed(key: str, start: int, length: int) -> tuple[bytes, int]:
        found = read(key, start, length)
        assert urllib3.request("PUT", address, body=bytes(len(data))).status == 200
        return found

    with monkeypatch.context() as patch:
        patch.setattr(blobs.objects, "read", read_and_be_betrayed)
        with blobs.staging(KEY) as staged:
            staged.publish(Digest.of(data))
    assert b"".join(S3Blobs(place).chunks(Digest.of(data))) == data


@pytest.mark.parametrize("size", [1000, SEGMENT + 1000])
def test_writes_are_encrypted_on_request(s3_place: str, size: int) -> None:
    blobs = S3Blobs(replace(S3Location.parse(s3_place), sse="AES256"))
    data = os.urandom(size)
    blobs.put(Digest.of(data), [data])
    (written,) = blobs.objects.list_objects("sha256/")
    assert (
        blobs.objects.client.head_object(**blobs.objects.key_params(written.key))["ServerSideEncryption"]
        == "AES256"
    )
    assert b"".join(blobs.chunks(Digest.of(data))) == data
    address = blobs.upload_url(KEY, 0, 5, 60)
    assert urllib3.request("PUT", address.url, body=b"hello").status == 403
    assert urllib3.request("PUT", address.url, body=b"hello", headers=address.headers).status == 200


@pytest.mark.parametrize(("addressing", "host"), [("path", "store.test"), ("virtual", "adapters.store.test")])
def test_the_bucket_is_named_in_the_path_or_in_the_host(
    s3_credentials: None, addressing: str, host: str
) -> None:
    place = S3Location.parse(
        f"s3://adapters/a?endpoint=http://store.test:8333&region=r&addressing={addressing}"
    )
    address = urlsplit(S3Blobs(place).download_url(Digest.of(b""), "x", 60))
    assert (address.hostname, address.path.startswith("/adapters/")) == (host, addressing == "path")


def test_a_header_is_read_without_the_weights(
    place: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = open_dir(tiny_lora(tmp_path / "lora", hidden=512, layers=8, rank=32))
    blobs = S3Blobs(place)
    files = []
    for path, size in adapter.content.sizes.items():
        data = adapter.content.read(path, 0, size)
        blobs.put(Digest.of(data), [data])
        files.append(FileEntry(path=path, size=size, sha256=Digest.of(data)))
    files.sort(key=lambda entry: entry.path)
    fetched: list[int] = []
    read = blobs.objects.read

    def counting(key: str, start: int, length: int) -> tuple[bytes, int]:
        found = read(key, start, length)
        fetched.append(len(found[0]))
        return found

    monkeypatch.setattr(blobs.objects, "read", counting)
    content = BlobContent(blobs, Manifest(files=tuple(files)))
    assert open_content(content).spec == adapter.spec
    assert sum(fetched) < 200_000 < max(entry.size for entry in files)


def test_addresses_name_the_endpoint_that_clients_reach(place: S3Location) -> None:
    where = urlsplit(place.endpoint or "")
    with run_proxy(FaultProxy(where.hostname or "", where.port or 0)) as outside:
        blobs = S3Blobs(replace(place, public=f"http://127.0.0.1:{outside.port}"))
        blobs.put(Digest.of(b"hello"), [b"hello"])
        assert outside.connections == 0
        assert urllib3.request("GET", blobs.download_url(Digest.of(b"hello"), "x", 60)).data == b"hello"
        assert urllib3.request("PUT", blobs.upload_url(KEY, 0, 5, 60).url, body=b"hello").status == 200
        assert outside.connections
