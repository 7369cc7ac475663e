"""Quotas: who is charged for which bytes, and that no one exceeds a limit, even with concurrent pushes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Busy, NotFound, PermissionDenied, QuotaExceeded
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.quotas import EVERY, UNLIMITED, QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.operations.repair import repair_registry
from adaptry.operations.transfer import push
from adaptry.registry.quotas import QuotaInfo, QuotaRequest
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import stored_use
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.storage.maintenance.gc import plan_sweep, scan_garbage, sweep
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora

ACME, ANN = QuotaSubject("namespace", "acme"), QuotaSubject("principal", "ann")
TONE, TUNE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/tune")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def admin() -> LocalRegistry:
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs(), LOCAL, clock=lambda: NOW))
    for name in ("ann", "bob"):
        registry.principals.create("user", name)
    return registry


def as_user(registry: LocalRegistry, name: str, key: int = 1) -> LocalRegistry:
    """The registry for a stored principal who owns every namespace."""
    return registry.on_behalf_of(Identity(name, (Grant("owner", Resource.parse("*")),), principal=key))


def limit(registry: LocalRegistry, who: QuotaSubject, **limits: int) -> QuotaInfo:
    return registry.quotas.set(QuotaRequest(scope=who.scope, name=who.name, **limits))


def shown(registry: LocalRegistry, who: QuotaSubject) -> QuotaInfo:
    (found,) = registry.quotas.list(who)
    return found


def send(registry: LocalRegistry, owner: AdapterName, data: bytes) -> None:
    upload = registry.uploads.open(owner, Digest.of(data), len(data))
    registry.uploads.finish(registry.uploads.append(upload, 0, [data]))


def test_a_file_counts_for_its_namespace_and_its_sender(admin: LocalRegistry) -> None:
    send(as_user(admin, "ann"), TONE, b"x" * 10)
    send(as_user(admin, "bob", 2), TONE, b"x" * 10)  # acme/tone already has it
    send(as_user(admin, "bob", 2), TUNE, b"x" * 10)  # the same bytes, for another adapter
    assert shown(admin, ACME).used_bytes == 20
    assert shown(admin, ANN).used_bytes == 10
    assert shown(admin, QuotaSubject("principal", "bob")).used_bytes == 10


def test_a_full_namespace_accepts_no_byte_until_something_is_deleted(
    admin: LocalRegistry,
) -> None:
    limit(admin, ACME, bytes=100)
    ann = as_user(admin, "ann")
    ann.adapters.create(TONE, AdapterEdit())
    send(ann, TONE, b"x" * 60)
    with pytest.raises(QuotaExceeded, match="has 40 bytes left, but 41 are needed; delete") as raised:
        ann.uploads.open(TUNE, Digest.of(b"y" * 41), 41)
    assert "adaptry quota set acme --bytes SIZE" in raised.value.message
    ann.adapters.delete(TONE)
    send(ann, TUNE, b"y" * 41)
    assert shown(admin, ACME).used_bytes == 41
    limit(admin, ACME, bytes=50)
    with pytest.raises(QuotaExceeded):
        ann.uploads.open(TUNE, Digest.of(b"z" * 10), 10)
    limit(admin, ACME, bytes=51)
    send(ann, TUNE, b"z" * 10)


def test_two_concurrent_uploads_cannot_both_use_the_last_byte(admin: LocalRegistry) -> None:
    limit(admin, ACME, bytes=100)

    def try_to_send(number: int) -> AdaptryError | None:
        try:
            send(as_user(admin, "ann"), TONE, bytes([number]) * 30)
        except AdaptryError as error:
            return error
        return None

    with ThreadPoolExecutor(8) as pool:
        refusals = [error for error in pool.map(try_to_send, range(16)) if error]
    assert all(isinstance(error, Busy | QuotaExceeded) for error in refusals)
    use = shown(admin, ACME)
    assert use.used_bytes <= 100
    assert use.reserved_bytes == 0
    assert len(refusals) == 16 - use.used_bytes // 30


def test_an_open_upload_reserves_its_bytes_until_it_is_dropped(
    admin: LocalRegistry,
) -> None:
    limit(admin, ACME, bytes=100)
    ann = as_user(admin, "ann")
    open_upload = ann.uploads.open(TONE, Digest.of(b"x" * 80), 80)
    ann.uploads.open(TONE, Digest.of(b"x" * 80), 80)  # the same bytes once more reserve nothing
    with pytest.raises(Busy, match="open uploads have reserved the rest") as raised:
        ann.uploads.open(TONE, Digest.of(b"y" * 30), 30)
    assert raised.value.retry_after > 0
    for session in ann.uploads.list().items:
        ann.uploads.drop(session.id)
    send(ann, TONE, b"y" * 30)
    assert open_upload.size == 80


def test_an_abandoned_upload_gives_back_what_it_reserved(admin: LocalRegistry) -> None:
    limit(admin, ANN, bytes=100)
    as_user(admin, "ann").uploads.open(TONE, Digest.of(b"x" * 80), 80)
    later = LocalRegistry(
        RegistryContext(admin.catalog, admin.blobs, LOCAL, clock=lambda: NOW + timedelta(minutes=5))
    )
    send(as_user(later, "ann"), AdapterName.parse("other/tone"), b"y" * 30)
    assert shown(admin, ANN).reserved_bytes == 0


def test_a_principal_is_limited_wherever_they_store(admin: LocalRegistry) -> None:
    limit(admin, ANN, bytes=20, uploads=1)
    ann = as_user(admin, "ann")
    send(ann, TONE, b"x" * 15)
    with pytest.raises(QuotaExceeded, match="adaptry quota set ann --principal"):
        ann.uploads.open(AdapterName.parse("other/tone"), Digest.of(b"y" * 10), 10)
    ann.uploads.open(TONE, Digest.of(b"z"), 1)
    with pytest.raises(Busy, match="1 upload of ann is open"):
        ann.uploads.open(AdapterName.parse("other/tone"), Digest.of(b"u"), 1)
    send(as_user(admin, "bob", 2), TONE, b"y" * 10)


def test_versions_are_counted_and_limited(admin: LocalRegistry, tmp_path: Path) -> None:
    limit(admin, ACME, versions=1)
    ann = as_user(admin, "ann")
    first = open_dir(tiny_lora(tmp_path / "one", seed=1))
    push(ann, first, TONE)
    push(ann, first, TONE)  # the existing version
    with pytest.raises(QuotaExceeded, match="has 1 version and may have 1"):
        push(ann, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE)
    ann.adapters.delete(TONE)
    push(ann, open_dir(tiny_lora(tmp_path / "two", seed=2)), TUNE)
    assert shown(admin, ACME).used_versions == shown(admin, ANN).used_versions == 1


def test_a_rename_must_fit_the_new_namespaces_quota(admin: LocalRegistry, tmp_path: Path) -> None:
    other = QuotaSubject("namespace", "other")
    ann = as_user(admin, "ann")
    push(ann, open_dir(tiny_lora(tmp_path / "one")), TONE)
    stored = shown(admin, ACME).used_bytes
    limit(admin, other, bytes=stored - 1)
    with pytest.raises(QuotaExceeded):
        ann.adapters.rename(TONE, AdapterName.parse("other/tone"))
    assert shown(admin, ACME).used_bytes == stored
    limit(admin, other, bytes=stored)
    ann.adapters.rename(TONE, AdapterName.parse("other/tone"))
    assert (shown(admin, ACME).used_bytes, shown(admin, ACME).used_versions) == (0, 0)
    assert (shown(admin, other).used_bytes, shown(admin, other).used_versions) == (stored, 1)


def test_a_limit_of_a_name_counts_before_that_of_every_name(admin: LocalRegistry) -> None:
    limit(admin, QuotaSubject("namespace", EVERY), bytes=10, versions=5)
    limit(admin, ACME, bytes=20)
    found = shown(admin, ACME)
    assert (found.bytes, found.versions, found.uploads) == (20, 5, MAX_OPEN_UPLOADS)
    assert found.own == ("bytes",)
    limit(admin, ACME, bytes=UNLIMITED)
    send(as_user(admin, "ann"), TONE, b"x" * 100)
    admin.quotas.remove(ACME)
    assert shown(admin, ACME).bytes == 10
    with pytest.raises(NotFound, match="no quota is set"):
        admin.quotas.remove(ACME)


def test_the_registry_of_one_person_on_one_machine_is_not_limited(admin: LocalRegistry) -> None:
    limit(admin, QuotaSubject("namespace", EVERY), bytes=1, versions=0)
    send(admin, TONE, b"x" * 100)
    assert shown(admin, ACME).used_bytes == 100


def test_administrators_set_quotas_and_members_see_them(admin: LocalRegistry) -> None:
    bob = admin.on_behalf_of(Identity("bob", (Grant("owner", Resource.parse("acme")),), principal=2))
    assert shown(bob, ACME).scope == "namespace"
    assert [one.name for one in bob.quotas.list()] == ["bob"]
    for who in (ANN, QuotaSubject("namespace", "other"), QuotaSubject("principal", "nobody")):
        with pytest.raises(PermissionDenied):
            bob.quotas.list(who)
    with pytest.raises(PermissionDenied):
        limit(bob, ACME, bytes=1)
    with pytest.raises(PermissionDenied):
        bob.quotas.remove(ACME)
    with pytest.raises(NotFound):
        limit(admin, QuotaSubject("principal", "nobody"), bytes=1)


def test_a_sweep_releases_the_quota_of_deleted_files(admin: LocalRegistry) -> None:
    send(as_user(admin, "ann"), TONE, b"x" * 10)
    for days in (0, 10):
        found = scan_garbage(admin.catalog, admin.blobs)
        sweep(admin.catalog, admin.blobs, plan_sweep(found, NOW + timedelta(days=days), timedelta(days=1)))
    assert shown(admin, ACME).used_bytes == shown(admin, ANN).used_bytes == 0
    assert verify(admin.catalog, admin.blobs) == ()


def test_wrong_counters_are_found_and_corrected(admin: LocalRegistry, tmp_path: Path) -> None:
    push(as_user(admin, "ann"), open_dir(tiny_lora(tmp_path / "one")), TONE)
    right = shown(admin, ACME), shown(admin, ANN)
    with admin.catalog.write() as tx:
        stored_use.add_file(tx, "acme/tone", 5, "ann")
        stored_use.add_version(tx, "gone", "bob")
    problems = verify(admin.catalog, admin.blobs)
    assert {problem.kind for problem in problems} == {"derived"}
    assert len(problems) == 4
    repair_registry(admin)
    assert verify(admin.catalog, admin.blobs) == ()
    assert (shown(admin, ACME), shown(admin, ANN)) == right


def test_use_that_is_read_in_a_transaction_includes_what_the_transaction_added(
    admin: LocalRegistry, tmp_path: Path
) -> None:
    push(as_user(admin, "ann"), open_dir(tiny_lora(tmp_path / "one")), TONE)
    with admin.catalog.write() as tx:
        before = stored_use.find(tx, ACME)
        stored_use.add_file(tx, "acme/tone", 5, "ann")
        stored_use.add_version(tx, "acme", "ann")
        stored_use.add_file(tx, "acme/tone", 7, None)
        within = stored_use.find(tx, ACME)
    with admin.catalog.read() as tx:
        after = stored_use.find(tx, ACME), stored_use.find(tx, ANN)
    assert (within.bytes, within.versions) == (before.bytes + 12, before.versions + 1)
    assert after[0] == within
    assert (after[1].bytes, after[1].versions) == (before.bytes + 5, before.versions + 1)


def test_files_stored_in_one_pass_count_as_those_that_are_sent(admin: LocalRegistry, tmp_path: Path) -> None:
    content = open_dir(tiny_lora(tmp_path / "out")).content
    size = sum(content.sizes.values())
    limit(admin, ACME, bytes=size)
    ann = as_user(admin, "ann")

    assert ann.uploads.ingest(TONE, content) is not None
    assert (shown(admin, ACME).used_bytes, shown(admin, ANN).used_bytes) == (size, size)
    with pytest.raises(QuotaExceeded, match="has 0 bytes left"):
        ann.uploads.ingest(TUNE, content)
    assert shown(admin, ACME).used_bytes == size


def test_only_those_who_may_push_store_files_in_one_pass(admin: LocalRegistry, tmp_path: Path) -> None:
    content = open_dir(tiny_lora(tmp_path / "out")).content
    reader = admin.on_behalf_of(Identity("ann", (Grant("reader", Resource.parse("*")),), principal=1))

    with pytest.raises(PermissionDenied):
        reader.uploads.ingest(TONE, content)
    assert shown(admin, ACME).used_bytes == 0
