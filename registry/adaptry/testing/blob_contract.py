"""The contract of every blob store. Subclass `BlobContract` and give it a `blobs` fixture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, DigestMismatch, NotFound, OffsetMismatch
from adaptry.storage.blobs import BlobStore

HELLO = b"hello, blobs"


class BlobContract:
    """The promises of `BlobStore`, one test each."""

    @pytest.fixture
    def blobs(self) -> BlobStore:
        """An empty store."""
        raise NotImplementedError

    def test_a_stored_blob_is_read_whole_and_in_parts(self, blobs: BlobStore) -> None:
        digest = put(blobs, HELLO)
        assert blobs.has(digest)
        assert blobs.size(digest) == len(HELLO)
        assert b"".join(blobs.chunks(digest)) == HELLO
        assert b"".join(blobs.chunks(digest, 7)) == HELLO[7:]
        assert blobs.read(digest, 7, 3) == HELLO[7:10]
        assert blobs.read(digest, 7, 1000) == HELLO[7:]

    def test_an_empty_blob_is_a_blob(self, blobs: BlobStore) -> None:
        digest = put(blobs, b"")
        assert blobs.has(digest)
        assert list(blobs.chunks(digest)) == []
        assert list(blobs.stagings()) == []

    def test_pieces_have_at_most_a_mebibyte_for_any_input(self, blobs: BlobStore) -> None:
        data = os.urandom((5 << 20) // 2)
        digest = put(blobs, data)
        pieces = list(blobs.chunks(digest))
        assert max(map(len, pieces)) <= 1 << 20
        assert b"".join(pieces) == data

    def test_a_sound_blob_is_not_set_aside(self, blobs: BlobStore) -> None:
        digest = put(blobs, HELLO)
        before = blobs.copy_id(digest)
        assert before is not None
        assert not blobs.set_aside(digest)
        assert blobs.copy_id(digest) == before
        assert blobs.is_sound(digest)
        absent = Digest.of(b"nobody has this")
        assert not blobs.set_aside(absent)
        assert blobs.copy_id(absent) is None

    def test_a_damaged_blob_that_was_set_aside_is_absent_until_it_is_stored_again(
        self, blobs: BlobStore
    ) -> None:
        """Bytes cannot be damaged through the interface, so other bytes are moved under the wrong digest."""
        digest, wrong = put(blobs, HELLO), Digest.of(b"what should be there")
        self.store_damaged(blobs, digest, wrong)
        assert not blobs.is_sound(wrong)
        assert blobs.set_aside(wrong)
        assert not blobs.has(wrong)
        assert wrong not in set(blobs.digests())
        put(blobs, b"what should be there")
        assert blobs.is_sound(wrong)

    def store_damaged(self, blobs: BlobStore, digest: Digest, wrong: Digest) -> None:
        """Stores the bytes of `digest` under `wrong`, bypassing every check."""
        with blobs.staging(blobs.new_key()) as staged:
            staged.append(0, blobs.chunks(digest))
            staged._publish(wrong)
            staged._is_gone = True

    def test_putting_an_existing_blob_reads_nothing(self, blobs: BlobStore) -> None:
        digest = put(blobs, HELLO)

        def never() -> Iterator[bytes]:
            raise AssertionError("read although the blob is there")
            yield b""

        blobs.put(digest, never())

    def test_bytes_with_another_digest_are_refused_and_discarded(self, blobs: BlobStore) -> None:
        digest = Digest.of(HELLO)
        with pytest.raises(DigestMismatch, match="nothing was kept"):
            blobs.put(digest, [b"other bytes"])
        assert not blobs.has(digest)
        assert list(blobs.digests()) == []
        assert list(blobs.stagings()) == []

    def test_a_failed_source_leaves_no_blob(self, blobs: BlobStore) -> None:
        def failing() -> Iterator[bytes]:
            yield HELLO
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            blobs.put(Digest.of(HELLO), failing())
        assert list(blobs.digests()) == []
        assert list(blobs.stagings()) == []

    def test_an_absent_blob_is_not_found(self, blobs: BlobStore) -> None:
        absent = Digest.of(b"absent")
        assert not blobs.has(absent)
        for look in (blobs.size, blobs.chunks, lambda digest: blobs.read(digest, 0, 1)):
            with pytest.raises(NotFound):
                look(absent)

    def test_a_deleted_blob_does_not_exist_and_deleting_it_again_raises_no_error(
        self, blobs: BlobStore
    ) -> None:
        digest = put(blobs, HELLO)
        blobs.delete(digest)
        blobs.delete(digest)
        assert not blobs.has(digest)

    def test_every_blob_is_listed(self, blobs: BlobStore) -> None:
        digests = {put(blobs, bytes([number])) for number in range(20)}
        assert set(blobs.digests()) == digests

    def test_a_staging_grows_over_several_sessions(self, blobs: BlobStore) -> None:
        key = blobs.new_key()
        with blobs.staging(key) as staged:
            staged.append(0, [HELLO[:5]])
        assert blobs.staged_size(key) == 5
        with blobs.staging(key) as staged:
            staged.append(5, [HELLO[5:]])
            staged.publish(Digest.of(HELLO))
        assert b"".join(blobs.chunks(Digest.of(HELLO))) == HELLO
        assert blobs.staged_size(key) == 0

    def test_bytes_received_before_an_interruption_are_kept(self, blobs: BlobStore) -> None:
        def interrupted() -> Iterator[bytes]:
            yield HELLO[:4]
            raise ConnectionError("gone")

        key = blobs.new_key()
        with pytest.raises(ConnectionError), blobs.staging(key) as staged:
            staged.append(0, interrupted())
        assert blobs.staged_size(key) == 4

    def test_bytes_at_a_wrong_offset_are_refused_with_the_right_offset(self, blobs: BlobStore) -> None:
        with blobs.staging(blobs.new_key()) as staged:
            staged.append(0, [HELLO[:5]])
            with pytest.raises(OffsetMismatch, match="continue at 5") as raised:
                staged.append(3, [b"x"])
            assert raised.value.offset == 5

    def test_a_staging_has_one_writer(self, blobs: BlobStore) -> None:
        key = blobs.new_key()
        with blobs.staging(key):
            assert blobs.is_held(key)
            with pytest.raises(Conflict, match="another process"):
                blobs.staging(key)
        assert not blobs.is_held(key)

    def test_a_staging_has_the_time_of_its_last_bytes(self, blobs: BlobStore) -> None:
        key = blobs.new_key()
        assert blobs.last_write(key) is None
        with blobs.staging(key) as staged:
            assert blobs.last_write(key) is None
            staged.append(0, [HELLO])
        written = blobs.last_write(key)
        assert written is not None
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=5)

    def test_an_unused_staging_leaves_no_trace(self, blobs: BlobStore) -> None:
        with blobs.staging(blobs.new_key()):
            pass
        assert list(blobs.stagings()) == []

    def test_a_staging_published_under_a_wrong_digest_is_removed(self, blobs: BlobStore) -> None:
        key = blobs.new_key()
        with blobs.staging(key) as staged:
            staged.append(0, [HELLO])
            with pytest.raises(DigestMismatch):
                staged.publish(Digest.of(b"other"))
        assert list(blobs.stagings()) == []

    def test_publishing_over_the_same_blob_is_harmless(self, blobs: BlobStore) -> None:
        digest = put(blobs, HELLO)
        with blobs.staging(blobs.new_key()) as staged:
            staged.append(0, [HELLO])
            staged.publish(digest)
        assert b"".join(blobs.chunks(digest)) == HELLO


def put(blobs: BlobStore, data: bytes) -> Digest:
    """Stores `data` in uneven pieces and returns its digest, computed independently of the store."""
    digest = Digest(hashlib.sha256(data).hexdigest())
    blobs.put(digest, [data[:3], memoryview(data)[3:]])
    return digest
