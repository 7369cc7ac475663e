"""Xorbs that are written, while they arrive, into the file of which they are a part."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from adaptry.core.errors import CorruptData, Invalid
from adaptry_api.hub.upload_spool import UploadSpools
from adaptry_api.hub.xet import early_join
from adaptry_api.hub.xet.incoming_xorb import IncomingXorb
from adaptry_api.hub.xet.reassembly import read_spooled
from adaptry_api.hub.xet.stored_xorb import Run, StoredXorb, file_beside
from adaptry_api.testing import Server, until

from .test_xet_early import HASHES, WEIGHTS, XORBS, entry, finish_in_another_process, open_uploads, send
from .uploads import XetUpload, create, has, kept
from .xet_bodies import chunk, file_entry, shard

KEY = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def any_xorb_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small xorbs count as full: real ones have 64 MiB."""
    monkeypatch.setattr(early_join, "_FULL", len(b"".join(XORBS[0])) - len(XORBS[0][0]))


@pytest.fixture
def upload(server: Server) -> XetUpload:
    create(server)
    return XetUpload.start(server)


def bytes_on_disk(server: Server) -> int:
    """The size of all files received by uploads; those with two names are counted once."""
    found = [path.stat() for part in ("blobs", "spools") for path in (server.data / part).rglob("*")]
    return sum({each.st_ino: each.st_size for each in found if each.st_mode & 0o100000}.values())


def test_bytes_that_are_written_as_they_arrive_are_on_the_disk_once(
    server: Server, upload: XetUpload
) -> None:
    for number in range(3):
        send(upload, number)
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    assert bytes_on_disk(server) < len(WEIGHTS) + 10_000
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    until(lambda: list((server.data / "spools").rglob("joined-*")), [].__eq__)
    assert bytes_on_disk(server) < len(WEIGHTS) + 10_000


def test_bytes_that_another_process_wrote_as_they_arrived_are_on_the_disk_once(
    server: Server, upload: XetUpload
) -> None:
    finish_in_another_process(server, upload)
    assert bytes_on_disk(server) < len(WEIGHTS) + 20_000


def test_the_chunks_after_the_end_of_the_file_are_kept_for_other_files(
    server: Server, upload: XetUpload
) -> None:
    send(upload, 0)
    send(upload, 1)
    second = [random.Random(9).randbytes(100_000) for _ in range(30)]
    assert upload.xorb(b"".join(map(chunk, [*XORBS[2], *second])), HASHES[2]).status == 200
    until(lambda: open_uploads(server), [len(WEIGHTS)].__eq__)
    content = b"".join(second)
    end = len(XORBS[2]) + len(second)
    other = file_entry(content, [(HASHES[2], len(content), len(XORBS[2]), end)])
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS), other)).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert has(server, content)


@pytest.mark.parametrize("number", range(3))
def test_a_xorb_that_breaks_off_can_be_sent_again(server: Server, upload: XetUpload, number: int) -> None:
    for each in range(number):
        send(upload, each)
    break_off(upload, b"".join(map(chunk, XORBS[number])), HASHES[number])
    until(lambda: open_uploads(server), [].__eq__)
    for each in range(number, 3):
        send(upload, each)
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)


def test_a_file_whose_early_upload_is_dropped_is_joined_as_usual(server: Server, upload: XetUpload) -> None:
    send(upload, 0)
    (session,) = until(lambda: server.registry().uploads.list().items, bool)
    server.registry().uploads.drop(session.id)
    send(upload, 1)
    send(upload, 2)
    assert upload.shard(shard(entry([0, 1, 2], WEIGHTS))).json == {"result": 1}
    assert has(server, WEIGHTS)
    assert open_uploads(server) == []
    assert kept(server) == [hashlib.sha256(WEIGHTS).hexdigest()]


def break_off(upload: XetUpload, body: bytes, hash: str) -> None:
    """Sends half of a xorb, and closes the connection."""
    address = urlsplit(upload.server.url)
    head = (
        f"POST {upload.address}/v1/xorbs/default/{hash} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {upload.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(head.encode() + body[: len(body) // 2])


@pytest.mark.parametrize("seed", range(40))
def test_a_xorb_is_complete_wherever_its_bytes_were_taken(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    chunks = [rng.randbytes(rng.randrange(1, 128 << 10)) for _ in range(rng.randrange(1, 120))]
    content = b"".join(chunks)
    with UploadSpools(tmp_path).open("acme", "upload") as spool:
        path = spool.piece_path(HASHES[0])
        begin = rng.randrange(1 << 20)
        beside = file_beside(path, KEY)
        xorb = IncomingXorb(path, len(content))
        length = rng.choice([len(content), len(content) * 2, rng.randrange(len(content)), 0])
        stop_after = rng.choice([0, 1, 2, 1000])
        taker = Thread(target=take, args=(xorb, Run(beside, begin, length), stop_after))
        taker.start()
        spool.write(HASHES[0], xorb.split(iter(chunks)))
        taker.join()
        assert read(StoredXorb.open(path)) == content
        some = rng.randrange(len(chunks))
        runs = StoredXorb.open(path).runs_of(some, len(chunks))
        assert b"".join(map(read_run, runs)) == b"".join(chunks[some:])


def test_a_xorb_that_no_early_file_takes_is_stored_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptry_api.hub.xet.incoming_xorb.TURN_SECONDS", 0.0)
    with UploadSpools(tmp_path).open("acme", "upload") as spool:
        path = spool.piece_path(HASHES[0])
        xorb = IncomingXorb(path, 10)
        spool.write(HASHES[0], xorb.split([b"one", b"two"]))
        assert not xorb.accept(Run(file_beside(path, KEY), 0, 10))
        assert read(StoredXorb.open(path)) == b"onetwo"


def test_a_failed_request_ends_the_early_storing(tmp_path: Path) -> None:
    with UploadSpools(tmp_path).open("acme", "upload") as spool:
        path = spool.piece_path(HASHES[0])
        xorb = IncomingXorb(path, 10)
        taker = Thread(target=take, args=(xorb, Run(file_beside(path, KEY), 0, 10), 1000))
        taker.start()

        def broken() -> Iterator[bytes]:
            yield bytes(2 << 20)
            raise Invalid("the xorb ends inside chunk 1")

        with pytest.raises(Invalid):
            spool.write(HASHES[0], xorb.split(broken()))
        xorb.decline()
        taker.join()
        assert not path.exists()


def test_a_xorb_whose_bytes_were_lost_is_damaged(tmp_path: Path) -> None:
    with UploadSpools(tmp_path).open("acme", "upload") as spool:
        path = spool.piece_path(HASHES[0])
        beside = file_beside(path, KEY)
        xorb = IncomingXorb(path, 10)
        taker = Thread(target=take, args=(xorb, Run(beside, 0, 10), 1000))
        taker.start()
        spool.write(HASHES[0], xorb.split([b"one", b"two"]))
        taker.join()
        assert read(StoredXorb.open(path)) == b"onetwo"
        beside.write_bytes(b"on")  # the disk was full
        with pytest.raises(CorruptData, match="upload again"):
            StoredXorb.open(path)
        beside.unlink()
        with pytest.raises(CorruptData, match="upload again"):
            StoredXorb.open(path)


def take(xorb: IncomingXorb, run: Run, stop_after: int) -> None:
    """Writes the xorb's bytes to the run, in at most that many pieces."""
    assert isinstance(run.source, Path)
    with run.source.open("wb") as file:
        file.seek(run.begin)
        if not xorb.accept(run):
            return
        for number, piece in enumerate(pieces := xorb.pieces()):
            if number == stop_after:
                pieces.close()
                return
            file.write(piece)
            file.flush()


def read(xorb: StoredXorb) -> bytes:
    return b"".join(map(read_run, xorb.runs))


def read_run(run: Run) -> bytes:
    assert isinstance(run.source, Path)
    return b"".join(read_spooled(run.source, run.begin, run.length))
