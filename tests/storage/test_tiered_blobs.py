"""A cache of files in front of a store: what it keeps and evicts, and that the store decides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData, NotFound
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.blobs.tiered import TieredBlobs


class Watched(MemoryBlobs):
    """A store that counts its reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        self.reads += 1
        return super().read(digest, start, length)


@pytest.fixture
def store() -> Watched:
    return Watched()


def put(store: MemoryBlobs, data: bytes) -> Digest:
    digest = Digest.of(data)
    store.put(digest, [data])
    return digest


def age(cache: Path, digest: Digest, seconds: float) -> None:
    """Makes the blob look as if it had been read this long ago."""
    path = cache / "sha256" / digest.hex[:2] / digest.hex
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def test_a_completely_read_blob_is_then_read_from_the_disk(store: Watched, tmp_path: Path) -> None:
    digest = put(store, b"hello")
    blobs = TieredBlobs(store, tmp_path, 1 << 20)
    assert b"".join(blobs.chunks(digest)) == b"hello"
    seen = store.reads
    assert b"".join(TieredBlobs(store, tmp_path, 1 << 20).chunks(digest)) == b"hello"
    assert blobs.read(digest, 1, 2) == b"el"
    assert store.reads == seen


def test_a_reader_that_stops_leaves_nothing_in_the_cache(store: Watched, tmp_path: Path) -> None:
    digest = put(store, os.urandom(3 << 20))
    chunks = TieredBlobs(store, tmp_path, 1 << 30).chunks(digest)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]  # a generator
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_cache_evicts_the_least_recently_read_blob(store: Watched, tmp_path: Path) -> None:
    first, second, third = (put(store, bytes([number]) * 100) for number in range(3))
    blobs = TieredBlobs(store, tmp_path, 250)
    for number, digest in enumerate((first, second)):
        list(blobs.chunks(digest))
        age(tmp_path, digest, 3600 - number)
    blobs.read(first, 0, 1)  # used again: now the second is the oldest
    age(tmp_path, first, 1000)
    list(blobs.chunks(third))
    kept = {path.name for path in (tmp_path / "sha256").rglob("*") if path.is_file()}
    assert kept == {first.hex, third.hex}


def test_the_most_recently_read_blob_stays_in_a_full_cache(store: Watched, tmp_path: Path) -> None:
    first, second = (put(store, bytes([number]) * 100) for number in range(2))
    blobs = TieredBlobs(store, tmp_path, 150)
    place = blobs.path_of(first)
    blobs.path_of(second)
    assert place.read_bytes() == b"\x00" * 100


def test_blobs_read_while_the_clock_was_hours_ahead_are_evicted_from_a_full_cache(
    store: Watched, tmp_path: Path
) -> None:
    first, second, third = (put(store, bytes([number]) * 100) for number in range(3))
    blobs = TieredBlobs(store, tmp_path, 150)
    for digest in (first, second):
        list(blobs.chunks(digest))
        age(tmp_path, digest, -7200)
    list(blobs.chunks(third))
    kept = {path.name for path in (tmp_path / "sha256").rglob("*") if path.is_file()}
    assert kept == {third.hex}


def test_a_blob_larger_than_the_cache_is_not_cached(store: Watched, tmp_path: Path) -> None:
    digest = put(store, b"x" * 1000)
    assert b"".join(TieredBlobs(store, tmp_path, 100).chunks(digest)) == b"x" * 1000
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_changed_bytes_never_enter_the_cache(store: Watched, tmp_path: Path) -> None:
    digest = put(store, b"hello")
    store._blobs[digest] = b"hullo"  # as a faulty disk would do
    blobs = TieredBlobs(store, tmp_path, 1 << 20)
    assert b"".join(blobs.chunks(digest)) == b"hullo"  # readers verify the bytes
    with pytest.raises(CorruptData, match="have changed; restore them"):
        blobs.path_of(digest)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_absent_blob_has_no_path(store: Watched, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        TieredBlobs(store, tmp_path, 1 << 20).path_of(Digest.of(b"absent"))


def test_files_of_dead_processes_are_removed_when_the_cache_is_opened(store: Watched, tmp_path: Path) -> None:
    TieredBlobs(store, tmp_path, 1 << 20)
    (tmp_path / "tmp" / ("ab" * 16)).write_bytes(b"half of something")
    TieredBlobs(store, tmp_path, 1 << 20)
    assert list((tmp_path / "tmp").iterdir()) == []
