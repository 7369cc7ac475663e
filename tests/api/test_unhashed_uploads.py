"""Uploads that begin before the file's digest is known, over HTTP and in an embedded registry."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.adapters.content import MemoryContent
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, DigestMismatch, Invalid, NotFound, TooLarge
from adaptry.core.refs import AdapterName
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.files import Owner
from adaptry.registry.http.connection import Connection
from adaptry.registry.interface import Registry
from adaptry.registry.records import UploadInfo
from adaptry.registry.versions import MAX_SENT
from adaptry.storage.catalog import inspections
from adaptry.storage.connect import open_in_memory, open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.file_by_file import push_file_by_file
from adaptry.testing.flaky_registry import NO_WAIT, FlakyRegistry, RemoteUploads
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.testing import Server, until

TONE, TUNE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/tune")
DATA = bytes(range(256)) * 4096  # 1 MiB
DIGEST = Digest.of(DATA)


@pytest.fixture(params=["embedded", "http"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param == "http":
        yield request.getfixturevalue("server").registry()
        return
    with open_local(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def large(tmp_path: Path) -> Adapter:
    """An adapter that is not sent in one request."""
    adapter = open_dir(tiny_lora(tmp_path / "large", layers=4, rank=64, hidden=4096))
    assert sum(adapter.content.sizes.values()) > MAX_SENT
    return adapter


def begun(registry: Registry, sent: int = len(DATA)) -> UploadInfo:
    session = registry.uploads.open(TONE, None, len(DATA))
    return registry.uploads.append(session, 0, [DATA[:sent]])


def test_an_upload_gets_its_digest_after_its_bytes(either: Registry) -> None:
    session = begun(either)
    named = either.uploads.open(TONE, DIGEST, len(DATA), session.id)
    assert (named.id, named.offset) == (session.id, len(DATA))
    either.uploads.finish(named)
    assert either.files.has(TONE, DIGEST)
    assert either.uploads.list().items == ()


def test_an_upload_can_be_finished_with_its_digest(either: Registry) -> None:
    session = begun(either)
    for _ in range(2):
        either.uploads.finish(session, DIGEST)
    assert either.files.has(TONE, DIGEST)
    assert either.uploads.list().items == ()


def test_an_upload_that_has_a_digest_is_not_finished_with_another(either: Registry) -> None:
    session = either.uploads.append(either.uploads.open(TONE, DIGEST, len(DATA)), 0, [DATA])
    with pytest.raises(Conflict, match="another digest"):
        either.uploads.finish(session, Digest.of(b"other bytes"))
    either.uploads.finish(session, DIGEST)
    with pytest.raises(Conflict, match="another digest"):
        either.uploads.finish(session, Digest.of(b"other bytes"))
    assert either.files.has(TONE, DIGEST)


def test_bytes_that_do_not_have_the_digest_given_at_the_end_are_not_kept(either: Registry) -> None:
    wrong = Digest.of(b"other bytes")
    with pytest.raises(DigestMismatch):
        either.uploads.finish(begun(either), wrong)
    assert not either.files.has(TONE, wrong)
    assert either.uploads.list().items == ()


def test_an_upload_that_has_its_digest_is_resumed_like_any_other(either: Registry) -> None:
    session = begun(either, 1000)
    assert either.uploads.open(TONE, DIGEST, len(DATA), session.id).id == session.id
    for earlier in (session.id, None):
        resumed = either.uploads.open(TONE, DIGEST, len(DATA), earlier)
        assert (resumed.id, resumed.offset) == (session.id, 1000)
    either.uploads.finish(either.uploads.append(resumed, 1000, [DATA[1000:]]))
    assert either.files.has(TONE, DIGEST)


def test_bytes_that_do_not_have_the_digest_given_later_are_not_kept(either: Registry) -> None:
    wrong = Digest.of(b"other bytes")
    named = either.uploads.open(TONE, wrong, len(DATA), begun(either).id)
    with pytest.raises(DigestMismatch):
        either.uploads.finish(named)
    assert not either.files.has(TONE, wrong)
    assert either.uploads.list().items == ()


def test_an_upload_without_a_digest_cannot_be_finished(either: Registry) -> None:
    session = begun(either)
    with pytest.raises(Invalid, match="finish it with the digest"):
        either.uploads.finish(session)
    assert not either.files.has(TONE, DIGEST)
    either.uploads.finish(session, DIGEST)
    assert either.files.has(TONE, DIGEST)


def test_a_digest_is_given_only_to_the_same_owners_upload_of_the_same_size(either: Registry) -> None:
    session = begun(either)
    for owner, size in ((TUNE, len(DATA)), (TONE, len(DATA) + 1)):
        assert either.uploads.open(owner, DIGEST, size, session.id).id != session.id
    other = either.uploads.open(TONE, Digest.of(b"1"), 1)
    assert either.uploads.open(TONE, Digest.of(b"2"), 1, other.id).id != other.id


def test_the_digest_is_wanted_first_where_it_may_save_sending_the_file(either: Registry) -> None:
    session = begun(either, 10)
    with pytest.raises(Conflict, match="hash the file first"):
        either.uploads.open(TONE, None, len(DATA))
    either.uploads.drop(session.id)
    either.uploads.finish(either.uploads.open(TONE, DIGEST, len(DATA), begun(either).id))
    with pytest.raises(Conflict, match="hash the file first"):
        either.uploads.open(TONE, None, len(DATA))
    assert either.uploads.open(TUNE, None, len(DATA)).offset == 0


def test_a_file_of_a_base_is_hashed_first(either: Registry, tmp_path: Path) -> None:
    base = register_base(either, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    with pytest.raises(Invalid, match="needs the file's digest"):
        either.uploads.open(base.id, None, 10)


class CountedContent(MemoryContent):
    """Counts the bytes of files that are read in chunks."""

    counted = 0

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        for chunk in super().chunks(path, start):
            self.counted += len(chunk)
            yield chunk


def test_a_push_over_http_reads_each_file_once_and_stores_the_same_version(
    server: Server, large: Adapter
) -> None:
    content = CountedContent({path: b"".join(large.content.chunks(path)) for path in large.content.sizes})
    pushed = push(server.registry(), replace(large, content=content), TONE).version
    assert content.counted == sum(content.sizes.values())
    with open_in_memory() as other:
        sent = push_file_by_file(other, large, TONE).version
    assert (pushed.digest, pushed.weights) == (sent.digest, sent.weights)


def test_a_push_of_a_large_adapter_takes_five_requests(
    server: Server, large: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, sent = Connection._request, list[str]()

    def counted(self: Connection, method: str, path: str, *rest: Any, **named: Any) -> Any:
        sent.append(f"{method} {path.rpartition('/')[2]}")
        return current(self, method, path, *rest, **named)

    monkeypatch.setattr(Connection, "_request", counted)
    push(server.registry(), large, TONE)
    assert [sent[0], sent[1], sent[3], sent[4]] == [
        "POST blobs",
        "POST uploads",
        "POST finish",
        "POST revisions",
    ]
    assert sent[2].startswith("PATCH ")
    assert len(sent) == 5


def test_small_files_of_which_some_are_large_are_sent_only_if_they_are_lacking(
    tmp_path: Path, large: Adapter
) -> None:
    files = {path: b"".join(large.content.chunks(path)) for path in large.content.sizes}
    adapter = replace(large, content=MemoryContent({**files, "tokenizer.json": bytes(100_000)}))
    with open_local(tmp_path / "data") as opened:
        remote = FlakyRegistry(opened.context)
        push(remote, adapter, TONE)
        assert remote.sent == sum(adapter.content.sizes.values())
        changed = {**files, "adapter_model.safetensors": files["adapter_model.safetensors"][:-1] + b"1"}
        push(
            remote, replace(large, content=MemoryContent({**changed, "tokenizer.json": bytes(100_000)})), TONE
        )
        assert remote.sent == sum(adapter.content.sizes.values()) + len(files["adapter_model.safetensors"])


def test_bytes_that_were_damaged_on_their_way_are_reported_and_not_sent_again(
    tmp_path: Path, large: Adapter
) -> None:
    with open_local(tmp_path / "data") as opened:
        damaging = FlakyRegistry(opened.context)
        damaging.uploads = DamagingUploads(opened.context)
        with pytest.raises(DigestMismatch):
            push(damaging, large, TONE, retry=NO_WAIT)


@pytest.mark.parametrize(("count", "size", "reason"), [(33, 1, "32 parts"), (2, (4 << 20) + 1, "8 MiB")])
def test_too_many_or_too_large_small_files_are_refused(
    server: Server, count: int, size: int, reason: str
) -> None:
    contents = [bytes([number]) * size for number in range(count)]
    with pytest.raises(TooLarge, match=reason):
        server.registry().uploads.put_all(TONE, contents)
    assert not server.registry().files.has(TONE, Digest.of(contents[0]))


def test_weights_that_arrived_in_one_request_are_inspected_before_they_are_admitted(
    server: Server, large: Adapter
) -> None:
    registry = server.registry()
    data = b"".join(large.content.chunks("adapter_model.safetensors"))
    session = registry.uploads.append(registry.uploads.open(TONE, None, len(data)), 0, [data])
    registry.uploads.finish(registry.uploads.open(TONE, Digest.of(data), len(data), session.id))
    with server.catalog.read() as tx:
        found = inspections.find(tx, [Digest.of(data)])
    assert found[Digest.of(data)].tensors.keys() == large.tensors.keys()


class OlderUploads(RemoteUploads):
    """Requires the digest first, like an older server."""

    def open(self, owner: Owner, digest: Digest | None, size: int, earlier: str | None = None) -> UploadInfo:
        if digest is None or earlier is not None:
            raise Invalid("digest: Field required")
        return super().open(owner, digest, size)


class DamagingUploads(RemoteUploads):
    """Changes the bytes of large files."""

    def append(
        self, upload: UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> UploadInfo:
        return super().append(upload, offset, (bytes(len(chunk)) for chunk in chunks), length)


class AskingUploads(RemoteUploads):
    """Requires the digest when an upload is opened again, like a server of an older version."""

    def finish(self, upload: UploadInfo, digest: Digest | None = None) -> None:
        if digest is not None:
            raise Invalid("digest: Extra inputs are not permitted")
        super().finish(upload)


@pytest.mark.parametrize("kind", [OlderUploads, AskingUploads])
def test_a_push_succeeds_with_an_older_server(
    tmp_path: Path, large: Adapter, kind: type[RemoteUploads]
) -> None:
    with open_local(tmp_path / "data") as opened:
        older = LocalRegistry(opened.context)
        older.uploads = kind(opened.context)
        assert push(older, large, TONE).is_new
        assert older.uploads.list().items == ()


def test_small_files_are_sent_one_by_one_to_an_older_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = Connection.request_bytes

    def older(self: Connection, method: str, path: str, **given: Any) -> bytes:
        if path.endswith("/blobs"):
            raise NotFound("there is nothing at this address")
        return current(self, method, path, **given)

    monkeypatch.setattr(Connection, "request_bytes", older)
    contents = [b"one", b"two"]
    server.registry().uploads.put_all(TONE, contents)
    assert all(server.registry().files.has(TONE, Digest.of(data)) for data in contents)


def test_a_push_that_is_cut_at_every_chunk_sends_each_byte_once(tmp_path: Path, large: Adapter) -> None:
    with open_local(tmp_path / "data") as opened:
        breaking = FlakyRegistry(opened.context)
        breaking.cuts = 5
        assert push(breaking, large, TONE, retry=NO_WAIT).is_new
        assert breaking.cuts == 0
        assert breaking.sent == sum(large.content.sizes.values())


def test_a_push_after_one_that_was_killed_hashes_the_file_first(tmp_path: Path, large: Adapter) -> None:
    with open_local(tmp_path / "data") as opened:
        breaking = FlakyRegistry(opened.context)
        size = large.content.sizes["adapter_model.safetensors"]
        left = breaking.uploads.append(breaking.uploads.open(TONE, None, size), 0, [bytes(10)])
        assert push(breaking, large, TONE).is_new
        assert [one.id for one in breaking.uploads.list().items] == [left.id]


def test_a_push_that_its_caller_ends_leaves_no_upload(server: Server, large: Adapter) -> None:
    def stop(text: str, done: int, size: int) -> None:
        if text == "uploading adapter_model.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(server.registry(), large, TONE, progress=stop)
    until(lambda: server.registry().uploads.list().items, lambda found: not found)


def test_bytes_of_a_slow_sender_are_kept_before_a_large_piece_is_complete(server: Server) -> None:
    session = server.registry().uploads.open(TONE, DIGEST, len(DATA))
    address = urlsplit(server.url)
    head = f"PATCH /api/v1/uploads/{session.id} HTTP/1.1\r\nHost: {address.netloc}\r\n"
    head += f"Authorization: Bearer {server.admin}\r\nContent-Type: application/octet-stream\r\n"
    head += f"Upload-Offset: 0\r\nUpload-Size: {len(DATA)}\r\nContent-Length: {len(DATA)}\r\n\r\n"
    with socket.create_connection((str(address.hostname), address.port)) as connection:
        connection.sendall(head.encode() + DATA[:700_000])
        connection.sendall(DATA[700_000:700_100])
    until(lambda: server.registry().uploads.list().items[0].offset, lambda offset: offset == 700_100)
