"""Promises about uploads: sessions that pause and continue, and who may learn which bytes exist."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import (
    Busy,
    Conflict,
    DigestMismatch,
    NotFound,
    OffsetMismatch,
    PermissionDenied,
    TooLarge,
)
from adaptry.core.identity import ANONYMOUS, LOCAL
from adaptry.core.manifest import MAX_FILE
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterEdit, UploadInfo
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeRegistry

DATA = os.urandom(300_000)
DIGEST = Digest.of(DATA)


class UploadsContract(ContractFixtures):
    """`files.has` to `uploads.drop`."""

    def test_a_finished_file_belongs_only_to_its_owner(self, make_registry: MakeRegistry) -> None:
        ada, eve = make_registry(ADA), make_registry(EVE)
        send(ada)
        assert ada.files.has(TONE, DIGEST)
        theirs = TONE.parse("evil/tone")
        assert not eve.files.has(theirs, DIGEST)
        assert eve.uploads.open(theirs, DIGEST, len(DATA)).offset == 0

    def test_an_interrupted_upload_can_be_continued(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, DIGEST, len(DATA))
        session = registry.uploads.append(session, 0, [DATA[:1000], DATA[1000:5000]])
        assert session.offset == 5000
        session = registry.uploads.append(session, 5000, [DATA[5000:]])
        registry.uploads.finish(session)
        assert registry.files.has(TONE, DIGEST)

    def test_an_upload_continues_after_the_bytes_received_before_an_interruption(
        self, registry: Registry
    ) -> None:
        def interrupted() -> Iterator[bytes]:
            yield DATA[:100_000]
            raise ConnectionResetError("the network is gone")

        session = registry.uploads.open(TONE, DIGEST, len(DATA))
        with pytest.raises(ConnectionResetError):
            registry.uploads.append(session, 0, interrupted())
        again = registry.uploads.open(TONE, DIGEST, len(DATA))
        assert (again.id, again.offset) == (session.id, 100_000)

    def test_bytes_at_a_wrong_offset_are_refused_with_the_right_offset(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, DIGEST, len(DATA))
        registry.uploads.append(session, 0, [DATA[:10]])
        with pytest.raises(OffsetMismatch) as raised:
            registry.uploads.append(session, 7, [DATA[7:]])
        assert raised.value.offset == 10

    def test_more_bytes_than_announced_are_refused(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, DIGEST, 10)
        with pytest.raises(TooLarge, match="announced"):
            registry.uploads.append(session, 0, [DATA])

    def test_a_file_over_the_limit_is_refused_before_a_byte_is_sent(self, registry: Registry) -> None:
        with pytest.raises(TooLarge, match="8 GiB"):
            registry.uploads.open(TONE, DIGEST, MAX_FILE + 1)

    def test_finishing_early_returns_the_offset_to_continue_at(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, DIGEST, len(DATA))
        session = registry.uploads.append(session, 0, [DATA[:10]])
        with pytest.raises(Conflict, match="missing; continue at 10"):
            registry.uploads.finish(session)
        assert not registry.files.has(TONE, DIGEST)

    def test_small_files_are_stored_together_and_may_be_sent_again(self, make_registry: MakeRegistry) -> None:
        ada, contents = make_registry(ADA), [b"", b"one", b"two", b"one"]
        for _ in range(2):
            ada.uploads.put_all(TONE, contents)
        assert all(ada.files.has(TONE, Digest.of(data)) for data in contents)
        for other in (EVE, RON, ANONYMOUS):
            with pytest.raises((PermissionDenied, NotFound)):
                make_registry(other).uploads.put_all(TONE, contents)

    def test_finishing_twice_is_finishing_once(self, registry: Registry) -> None:
        session = send(registry)
        registry.uploads.finish(session)
        assert registry.files.has(TONE, DIGEST)

    def test_bytes_with_another_digest_are_refused_and_discarded(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, DIGEST, len(DATA))
        session = registry.uploads.append(session, 0, [bytes(len(DATA))])
        with pytest.raises(DigestMismatch, match=f"the {len(DATA):,} bytes received are sha256:"):
            registry.uploads.finish(session)
        assert not registry.files.has(TONE, DIGEST)
        assert registry.uploads.open(TONE, DIGEST, len(DATA)).offset == 0

    def test_an_unknown_session_is_not_found(self, registry: Registry) -> None:
        for id in ("f" * 32, "../../etc/passwd", "x"):
            with pytest.raises(NotFound):
                registry.uploads.append(UploadInfo(id=id, offset=0, size=3), 0, [b"abc"])

    def test_an_empty_file_is_a_file(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, Digest.of(b""), 0)
        registry.uploads.finish(session)
        assert registry.files.has(TONE, Digest.of(b""))

    def test_two_concurrent_uploads_of_one_file_do_not_interfere(self, registry: Registry) -> None:
        one = registry.uploads.open(TONE, DIGEST, len(DATA))
        two = registry.uploads.open(TONE, DIGEST, len(DATA))
        one = registry.uploads.append(one, 0, [DATA])
        two = registry.uploads.append(two, 0, [DATA])
        registry.uploads.finish(one)
        registry.uploads.finish(two)

    def test_only_writers_upload(self, make_registry: MakeRegistry) -> None:
        session = make_registry(ADA).uploads.open(TONE, DIGEST, len(DATA))
        for other in (EVE, RON, ANONYMOUS):
            seen = make_registry(other)
            with pytest.raises((PermissionDenied, NotFound)):
                seen.uploads.open(TONE, DIGEST, len(DATA))
            with pytest.raises((PermissionDenied, NotFound)):
                seen.uploads.append(session, 0, [DATA])
            with pytest.raises((PermissionDenied, NotFound)):
                seen.uploads.finish(session)

    def test_an_open_upload_is_listed_for_those_who_may_write_there(
        self, make_registry: MakeRegistry
    ) -> None:
        ada = make_registry(ADA)
        session = ada.uploads.append(ada.uploads.open(TONE, DIGEST, len(DATA)), 0, [DATA[:10]])
        for may in (ADA, LOCAL):
            (shown,) = make_registry(may).uploads.list().items
            assert (shown.id, shown.owner, shown.digest) == (session.id, str(TONE), DIGEST)
            assert (shown.offset, shown.size, shown.created_by) == (10, len(DATA), "ada")
            assert not shown.is_held
        for other in (EVE, RON):
            assert not make_registry(other).uploads.list().items
            assert not make_registry(other).uploads.list("acme").items

    def test_open_uploads_come_in_pages_and_by_namespace(self, registry: Registry) -> None:
        opened = {registry.uploads.open(TONE, Digest.of(bytes([number])), 1).id for number in range(5)}
        registry.uploads.open(TONE.parse("other/tone"), DIGEST, len(DATA))
        found = iter_items(lambda cursor: registry.uploads.list("acme", cursor, 2))
        assert sorted(one.id for one in found) == sorted(opened)
        assert len(registry.uploads.list().items) == 6
        assert not registry.uploads.list("nobody").items

    def test_a_finished_upload_is_not_open(self, registry: Registry) -> None:
        session = send(registry)
        assert not registry.uploads.list().items
        with pytest.raises(NotFound):
            registry.uploads.drop(session.id)
        assert registry.files.has(TONE, DIGEST)

    def test_a_dropped_upload_does_not_exist_and_can_be_started_again(
        self, make_registry: MakeRegistry
    ) -> None:
        ada = make_registry(ADA)
        session = ada.uploads.append(ada.uploads.open(TONE, DIGEST, len(DATA)), 0, [DATA[:10]])
        for other in (EVE, RON, ANONYMOUS):
            with pytest.raises(NotFound):
                make_registry(other).uploads.drop(session.id)
        ada.uploads.drop(session.id)
        with pytest.raises(NotFound):
            ada.uploads.append(session, 10, [DATA[10:]])
        with pytest.raises(NotFound):
            ada.uploads.drop(session.id)
        assert not ada.uploads.list().items
        assert ada.uploads.open(TONE, DIGEST, len(DATA)).offset == 0

    def test_a_client_that_sends_to_a_dropped_upload_gets_an_error(self, registry: Registry) -> None:
        session = registry.uploads.open(TONE, DIGEST, len(DATA))

        def pieces() -> Iterator[bytes]:
            yield DATA[:10]
            registry.uploads.drop(session.id)
            yield DATA[10:]

        with pytest.raises(NotFound):
            registry.uploads.append(session, 0, pieces(), len(DATA))

    def test_a_namespace_at_its_limit_is_busy_and_others_are_not(self, registry: Registry) -> None:
        opened = [
            registry.uploads.open(TONE, Digest.of(bytes([number])), 1) for number in range(MAX_OPEN_UPLOADS)
        ]
        with pytest.raises(Busy, match=r"\d+ uploads are open in acme already") as raised:
            registry.uploads.open(TONE, DIGEST, len(DATA))
        assert raised.value.retry_after > 0
        registry.uploads.open(TONE.parse("other/tone"), DIGEST, len(DATA))
        registry.uploads.drop(opened[7].id)
        registry.uploads.open(TONE, DIGEST, len(DATA))

    def test_a_stranger_does_not_learn_which_files_a_private_adapter_has(
        self, make_registry: MakeRegistry
    ) -> None:
        ada = make_registry(ADA)
        ada.adapters.create(TONE, AdapterEdit())
        send(ada)
        for stranger in (EVE, ANONYMOUS):
            with pytest.raises(NotFound):
                make_registry(stranger).files.has(TONE, DIGEST)


def send(registry: Registry) -> UploadInfo:
    """Uploads `DATA` as a file of `TONE`."""
    session = registry.uploads.open(TONE, DIGEST, len(DATA))
    session = registry.uploads.append(session, session.offset, [DATA[session.offset :]])
    registry.uploads.finish(session)
    return session
