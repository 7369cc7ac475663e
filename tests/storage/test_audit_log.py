"""The audit log of an embedded registry: its entries, sealing, and detection of alterations."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlmodel.sql.expression import SelectOfScalar

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, CorruptData, Invalid, NotFound, PermissionDenied
from adaptry.core.failpoints import VARIABLE
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry.core.request_id import REQUEST_ID
from adaptry.core.transparency import merkle
from adaptry.core.transparency.checkpoint import LogCheckpoint, VerifierKey
from adaptry.core.transparency.merkle import Peaks
from adaptry.operations.audit_verification import verify_log
from adaptry.registry.access import TokenRequest
from adaptry.registry.audit_actions import ACTIONS, OF_EVENTS
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry.registry.workers import WorkerGoneRequest, WorkerReport
from adaptry.storage import tokens
from adaptry.storage.catalog.audit_log import entry_pages
from adaptry.storage.catalog.audit_log.log_key import LogKey
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record
from adaptry.storage.catalog.audit_log.sequencer import LEASE, Sequencer, log_state
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import AuditEntryRow
from adaptry.storage.connect import open_in_memory, open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.maintenance.recovery import recover_access

from .audit_changes import (
    CHANGING,
    NOT_RECORDED,
    READING,
    TESTED_ELSEWHERE,
    TONE,
    entries,
    fill,
    make_every_change,
)

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def registry(folder: Path) -> Iterator[LocalRegistry]:
    registry = open_local(folder)
    yield registry
    registry.close()


def insert_many(catalog: Catalog, count: int) -> None:
    """Makes this many entries in one transaction."""
    with catalog.write() as tx:
        for number in range(count):
            target = AuditTarget(f"acme/tone-{number % 7}", f"team-{number % 5}")
            record(tx, "adapter.edit", target, NOW + timedelta(seconds=number), by=f"user-{number % 3}")


def test_every_method_of_a_registry_is_classified_as_reading_or_changing(registry: LocalRegistry) -> None:
    methods = {
        f"{role}.{name}"
        for role in Registry.__annotations__
        for kind in type(getattr(registry, role)).__mro__
        for name, method in vars(kind).items()
        if getattr(method, "__isabstractmethod__", False)
    }
    groups = (CHANGING, NOT_RECORDED, READING, TESTED_ELSEWHERE)
    assert methods == frozenset().union(*groups)
    assert sum(map(len, groups)) == len(methods)


def test_every_change_is_recorded_once_with_old_and_new_values(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    seen, made = 0, set()
    for method, expected in make_every_change(registry, tmp_path):
        found = entries(registry)[seen:]
        assert len(found) == len(expected), (method, [entry.line for entry in found])
        for entry, wanted in zip(found, expected, strict=True):
            assert wanted.matches(entry), (wanted, entry.line)
            assert (entry.actor, entry.outcome) == ("local", "allowed")
        seen += len(found)
        made.add(method)
    assert made == CHANGING
    assert verify_log(registry.audit).problems == ()


def test_every_action_of_the_table_is_one_word_of_a_scope() -> None:
    assert set(OF_EVENTS.values()) <= set(ACTIONS)
    assert list(ACTIONS) == sorted(ACTIONS)
    assert all(action.count(".") == 1 for action in ACTIONS)


def test_a_worker_declared_gone_is_recorded() -> None:
    registry = open_in_memory()
    registry.workers.report(WorkerReport(worker="gpu-1", engine="vllm", lease=60))
    registry.context.clock = lambda: datetime.now(UTC) + timedelta(hours=1)
    registry.workers.declare_gone("gpu-1", WorkerGoneRequest(reason="the node was scrapped"))

    (entry,) = entries(registry)
    assert (entry.action, entry.what) == ("worker.gone", "gpu-1")
    assert dict(entry.after or {})["reason"] == "the node was scrapped"


def test_an_entry_names_the_token_its_limit_and_the_request(registry: LocalRegistry) -> None:
    secret = tokens.create_token(registry.catalog, "ann", "writer", ("acme",))
    ann = tokens.identify(registry.catalog, secret)
    current = REQUEST_ID.set("0123456789abcdef")
    registry.on_behalf_of(ann).adapters.create(TONE, AdapterEdit())
    REQUEST_ID.reset(current)

    (entry,) = registry.audit.list(AuditFilter(resource="acme/tone")).items
    assert (entry.actor, entry.token, entry.limit) == ("ann", ann.token, "writer on acme")
    assert (entry.principal, entry.request) == (ann.principal, "0123456789abcdef")


def test_a_change_that_fails_leaves_no_entry(registry: LocalRegistry) -> None:
    fill(registry, 1)
    with pytest.raises(Conflict):
        registry.adapters.create(TONE, AdapterEdit())
    with pytest.raises(NotFound):
        registry.aliases.move(TONE, "prod", Digest.of(b"none"), None)
    assert len(entries(registry)) == 1


def test_a_request_that_is_sent_again_is_recorded_once(registry: LocalRegistry) -> None:
    key = IdempotencyKey("one", Digest.of(b"request"))
    for _ in range(2):
        registry.on_behalf_of(registry.identity, key).adapters.create(TONE, AdapterEdit())
    assert len(entries(registry)) == 1


def test_recovery_of_access_is_recorded_with_all_its_changes(registry: LocalRegistry) -> None:
    recover_access(registry, "olga", "acme")
    assert [entry.action for entry in entries(registry)] == [
        "principal.create",
        "access.recover",
        "token.create",
    ]


def test_no_secret_is_ever_in_the_log(registry: LocalRegistry, folder: Path) -> None:
    secret = tokens.create_token(registry.catalog, "ann", "writer", ("acme",))
    registry.principals.create("user", "bob")
    other = registry.tokens.create(TokenRequest(name="laptop", principal="bob")).secret
    fill(registry, 1)
    registry.adapters.edit(TONE, AdapterEdit(description=f"{secret} and hf_{other[:20]}"))
    tokens.revoke_own_token(registry.catalog, secret)
    (edit,) = registry.audit.list(AuditFilter(action="adapter.edit")).items

    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database:
        dump = json.dumps(database.execute("SELECT * FROM audit_entries").fetchall())
    hashes = [tokens.hash_token(one) for one in (secret, other)]
    for text_ in (
        secret,
        other,
        secret[8:20],
        other[8:20],
        *hashes,
        (folder / "audit-key").read_bytes().hex(),
    ):
        assert text_ not in dump
    assert dict(edit.after or {})["description"] == "adr_… and hf_adr_…"


def test_a_large_change_is_truncated_in_the_log(registry: LocalRegistry) -> None:
    fill(registry, 1)
    registry.adapters.edit(TONE, AdapterEdit(description="x" * 4000, tags=tuple(f"t{n}" for n in range(64))))
    entry = registry.audit.list(AuditFilter(action="adapter.edit")).items[0]
    assert len(entry.line) < 1500
    assert str(dict(entry.after or {})["description"]).endswith("x…")


def test_the_log_is_first_sealed_when_it_is_read(registry: LocalRegistry, folder: Path) -> None:
    fill(registry, 3)
    assert not (folder / "audit-key").exists()
    assert registry.audit.checkpoint().unsealed == 0
    assert (folder / "audit-key").stat().st_mode & 0o777 == 0o600


def test_a_reopened_registry_continues_its_log(folder: Path) -> None:
    with open_local(folder) as registry:
        fill(registry, 2)
        first = registry.audit.checkpoint()
    with open_local(folder) as registry:
        registry.adapters.edit(TONE, AdapterEdit(description="again"))
        assert first.note is not None
        report = verify_log(registry.audit, None, first.note)
    assert (report.problems, report.entries, report.older, report.key) == ((), 3, 2, first.key)


def test_one_sequencer_seals_and_another_takes_over_when_its_lease_ends(registry: LocalRegistry) -> None:
    one, two = (Sequencer(registry.catalog, registry.context.log_key, holder) for holder in ("one", "two"))
    fill(registry, 1)
    assert one.run(NOW) == 1
    registry.adapters.edit(TONE, AdapterEdit(description="a"))
    assert two.run(NOW + timedelta(seconds=1)) == 0
    assert one.run(NOW + timedelta(seconds=1)) == 1
    registry.adapters.edit(TONE, AdapterEdit(description="b"))
    assert two.run(NOW + timedelta(seconds=1) + LEASE) == 1
    assert verify_log(registry.audit).problems == ()


def _shorten(database: sqlite3.Connection, size: int) -> None:
    """Truncates the log to its first `size` entries, as an attacker with knowledge of its format could."""
    peaks = Peaks()
    for (leaf,) in database.execute("SELECT leaf FROM audit_entries WHERE seq < ? ORDER BY seq", (size,)):
        peaks.append(bytes.fromhex(leaf))
    database.execute("DELETE FROM audit_entries WHERE seq >= ?", (size,))
    database.execute("DELETE FROM audit_checkpoints WHERE size > ?", (size,))
    state = (size, " ".join(peak.hex() for peak in peaks.hashes))
    database.execute("UPDATE audit_state SET size = ?, peaks = ?", state)


@pytest.mark.parametrize("grows_again", [False, True])
def test_a_log_shortened_to_an_older_checkpoint_is_not_sealed_further(
    registry: LocalRegistry, folder: Path, grows_again: bool
) -> None:
    key = registry.context.log_key
    seals, other = (Sequencer(registry.catalog, key, holder) for holder in ("one", "two"))
    fill(registry, 2)
    seals.run(NOW)
    registry.adapters.edit(TONE, AdapterEdit(description="what nobody is to know"))
    assert seals.run(NOW) == 1
    assert seals.run(NOW) == 0
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        _shorten(database, 2)
    registry.adapters.edit(TONE, AdapterEdit(description="more"))
    if grows_again:
        assert other.run(NOW + LEASE) == 1  # it has not seen the log before
    with pytest.raises(CorruptData, match="sealed are missing or changed"):
        seals.run(NOW + 2 * LEASE)


def test_a_sequencer_killed_between_sealing_and_signing_is_resumed(
    registry: LocalRegistry, folder: Path
) -> None:
    fill(registry, 3)
    killed = subprocess.run(
        [sys.executable, "-m", "adaptry_cli", "audit", "checkpoint", "--data", str(folder)],
        env={**os.environ, VARIABLE: "audit.after_seal"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    with registry.catalog.read() as tx:
        state = log_state(tx)
    assert (state.size, state.signed, state.unsealed) == (3, 0, False)

    report = verify_log(registry.audit)

    assert (report.problems, report.checkpoint) == ((), 3)


def test_a_process_with_another_key_does_not_sign(registry: LocalRegistry) -> None:
    fill(registry, 2)
    note = registry.audit.checkpoint().note
    registry.adapters.edit(TONE, AdapterEdit(description="later"))
    with pytest.raises(Conflict, match="does not have the key"):
        Sequencer(registry.catalog, LogKey(secret=b"another")).run(datetime.now(UTC) + LEASE)
    registry.context.log_key = LogKey(secret=b"another")
    assert registry.audit.checkpoint().note == note
    assert registry.audit.checkpoint().unsealed == 1


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000])
def test_proofs_of_any_size_lead_to_the_signed_root(registry: LocalRegistry, size: int) -> None:
    insert_many(registry.catalog, size)
    found = registry.audit.checkpoint()
    assert found.note is not None
    assert found.key is not None
    root = LogCheckpoint.verify(found.note, VerifierKey.parse(found.key)).root
    leaves = [merkle.leaf_hash(entry.line.encode()) for entry in registry.audit.sealed(0).items]
    for index in {0, size // 3, size - 1}:
        proof = [bytes.fromhex(one) for one in registry.audit.prove_inclusion(index, size).hashes]
        assert merkle.root_from_inclusion(leaves[index], index, size, proof) == root
    for old in {1, size // 2 or 1, size}:
        proof = [bytes.fromhex(one) for one in registry.audit.prove_consistency(old, size).hashes]
        assert merkle.is_consistent(old, merkle.root_of(leaves[:old]), size, root, proof)


@pytest.mark.parametrize(
    "where",
    [
        AuditFilter(),
        AuditFilter(actor="local", denied=False),
        AuditFilter(action="adapter.edit"),
        AuditFilter(action="adapter.*", resource="acme/tone-3"),
        AuditFilter(resource="team-2"),
        AuditFilter(since=NOW + timedelta(seconds=20), until=NOW + timedelta(seconds=60)),
        AuditFilter(action="token.*"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_have_every_entry_once_in_order(
    registry: LocalRegistry, where: AuditFilter, oldest_first: bool
) -> None:
    insert_many(registry.catalog, 100)
    scope = where.action.removesuffix("*") if where.action else ""
    expected = [
        entry.id
        for entry in entries(registry)
        if entry.action.startswith(scope)
        and where.resource in (None, entry.resource, entry.namespace)
        and (where.since is None or where.since <= entry.at < (where.until or entry.at))
    ]
    found, cursor = [], None
    while True:
        page = registry.audit.list(where, cursor, 7, oldest_first=oldest_first)
        found += [entry.id for entry in page.items]
        if (cursor := page.next) is None:
            break
    assert found == (expected if oldest_first else expected[::-1])


@pytest.mark.parametrize(
    "where",
    [
        AuditFilter(),
        AuditFilter(actor="ann"),
        AuditFilter(action="alias.move"),
        AuditFilter(resource="acme/tone"),
        AuditFilter(since=NOW, until=NOW),
    ],
    ids=repr,
)
@pytest.mark.parametrize("namespaces", [None, ("acme",)])
def test_a_page_is_read_by_an_index_without_sorting(
    registry: LocalRegistry, where: AuditFilter, namespaces: tuple[str, ...] | None
) -> None:
    insert_many(registry.catalog, 300)
    with registry.catalog.read() as tx:
        plans = [
            plan_of(tx.connection(), query)
            for query in entry_pages.queries(namespaces, where, None, 50, False)
        ]
    assert plans
    for plan in plans:
        assert not any("TEMP B-TREE" in step for step in plan), plan
        assert all("USING INDEX" in step for step in plan), plan


def plan_of(connection: Connection, query: SelectOfScalar[AuditEntryRow]) -> list[str]:
    compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]


def test_only_owners_read_entries_of_their_namespace(registry: LocalRegistry) -> None:
    registry.adapters.create(TONE, AdapterEdit())
    registry.adapters.create(AdapterName.parse("evil/tone"), AdapterEdit())
    registry.principals.create("user", "ann")
    owner = registry.on_behalf_of(Identity.with_role("olga", "owner", ("acme",)))

    assert [entry.what for entry in owner.audit.list(AuditFilter()).items] == ["acme/tone"]
    assert owner.audit.list(AuditFilter(resource="evil/tone")).items == ()
    assert owner.audit.prove_inclusion(0, 3).hashes
    for refused in (lambda: owner.audit.sealed(0), owner.audit.checkpoints):
        with pytest.raises(PermissionDenied):
            refused()
    for role in ("maintainer", "writer", "viewer"):
        other = registry.on_behalf_of(Identity.with_role("mia", role, ("acme",)))
        for ask in (lambda o=other: o.audit.list(AuditFilter()), other.audit.checkpoint):
            with pytest.raises(PermissionDenied, match="may not read the audit log"):
                ask()


def test_an_unknown_action_is_invalid(registry: LocalRegistry) -> None:
    for action in ("alias", "alias.", "alias.moved", "*", "nothing.*"):
        with pytest.raises(Invalid, match="no action"):
            registry.audit.list(AuditFilter(action=action))
