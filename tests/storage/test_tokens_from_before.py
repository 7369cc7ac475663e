"""Migration 0018 turns tokens into principals: nothing is lost, and every holder has the same rights as
before.

This file repeats the former rules of tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlmodel import col, select

from adaptry.core.access.actions import Action
from adaptry.core.errors import Unauthenticated
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import tokens
from adaptry.storage.catalog.access import read_scope
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rights import current_rights
from adaptry.storage.catalog.rows import JobRow
from adaptry.storage.tokens import create_token, identify_hash, list_tokens
from adaptry.testing.postgres import PostgresServer

from .downgrade import back_to_0017

NAMESPACES = ("acme", "acme-two", "team-1", "evil", "")
ADAPTERS = tuple(AdapterName.parse(f"{namespace}/tone") for namespace in NAMESPACES if namespace)
GLOBS = (("acme",), ("acme", "team-*"), ("*",), ("?*",), ("team-[0-9]",), ("*", "acme"), ("nobody",))
ROLES = ("reader", "writer", "admin", "worker")
NAMES = ("ada", "ci of acme", "gpu/1", "local", "é")
WRITES: tuple[Action, ...] = ("push", "evidence.add", "alias.move", "state.set", "delete", "job.run")
NEW: tuple[Action, ...] = (
    "approve",
    "inference.authorize",
    "member.manage",
    "token.manage",
    "webhook.manage",
)


@dataclass(frozen=True)
class OldToken:
    """A token of schema 0017, with the rules of that time."""

    id: int
    name: str
    role: str
    namespaces: tuple[str, ...]
    is_expired: bool
    is_revoked: bool

    @property
    def secret_sha256(self) -> str:
        return hashlib.sha256(str(self.id).encode()).hexdigest()

    def has_namespace(self, namespace: str) -> bool:
        return any(fnmatchcase(namespace, glob) for glob in self.namespaces)

    def may_read_base(self, owners: Iterable[str], visibility: str) -> bool:
        if visibility == "public" or "*" in self.namespaces:
            return True
        if visibility == "internal":
            return bool(self.namespaces)
        return any(self.has_namespace(owner) for owner in owners)

    @property
    def may_administer(self) -> bool:
        return self.role == "admin" and "*" in self.namespaces


OLD = tuple(
    OldToken(number, NAMES[number % len(NAMES)], role, globs, number % 11 == 5, number % 7 == 3)
    for number, (role, globs) in enumerate(itertools.product(ROLES, GLOBS), start=1)
)


def insert_old(connection: Connection) -> None:
    for one in OLD:
        connection.execute(
            text(
                "INSERT INTO tokens VALUES (:id, :hash, 'abcd', 'pat', :name, :role, :namespaces, :at,"
                " :expires, :revoked)"
            ),
            {
                "id": one.id,
                "hash": one.secret_sha256,
                "name": one.name,
                "role": one.role,
                "namespaces": json.dumps(one.namespaces),
                "at": "2026-10-01 00:00:00.000000",
                "expires": "2026-10-02 00:00:00.000000" if one.is_expired else None,
                "revoked": "2026-10-03 00:00:00.000000" if one.is_revoked else None,
            },
        )
        connection.execute(
            text(
                'INSERT INTO jobs (id, kind, task, namespace, state, needs, priority, "by", by_role,'
                " by_namespaces, submitted_at, tries) VALUES (:id, 'verify', '{}', '', 'queued', '{}', 5,"
                " :name, :role, :namespaces, :at, 1)"
            ),
            {
                "id": f"job-{one.id:016x}",
                "name": one.name,
                "role": one.role,
                "namespaces": json.dumps(one.namespaces),
                "at": "2026-10-01 00:00:00.000000",
            },
        )


@pytest.fixture(scope="module")
def old_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a catalog of schema 0017."""
    path = tmp_path_factory.mktemp("before") / "catalog.sqlite"
    Catalog.open(path).close()
    with closing(sqlite3.connect(path)) as database, database:
        back_to_0017(database)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        insert_old(connection)
    engine.dispose()
    return path


@pytest.fixture(scope="module")
def catalog(old_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterable[Catalog]:
    """The same catalog after its migrations, which tests only read."""
    copy = tmp_path_factory.mktemp("after") / "catalog.sqlite"
    shutil.copyfile(old_catalog, copy)
    with closing(Catalog.open(copy)) as opened:
        yield opened


def check_decisions(old: OldToken, new: Identity) -> None:
    assert new.name == old.name
    for name in ADAPTERS:
        holds = old.has_namespace(name.namespace)
        writes = holds and old.role in ("writer", "admin")
        assert new.may_read(name, "private") == holds
        assert {action: new.may(action, name) for action in WRITES} == dict.fromkeys(WRITES, writes)
        assert new.may("policy.manage", name) == (holds and old.role == "admin")
        assert [new.may(action, name) for action in NEW] == [old.may_administer] * len(NEW)
    for namespace in NAMESPACES:
        assert new.has_namespace(namespace) == old.has_namespace(namespace)
        assert new.may_in("job.run", namespace) == (
            old.has_namespace(namespace) and old.role in ("writer", "admin")
        )
    for owners in ((), ("acme",), ("evil", "team-1")):
        for visibility in ("private", "internal", "public"):
            found = new.may_read_base(owners, visibility)  # type: ignore[arg-type]  # one of the three
            assert found == old.may_read_base(owners, visibility)
    assert new.may_report == (old.role in ("worker", "admin"))
    assert new.may_administer == old.may_administer
    assert (new.role, new.namespaces) == (old.role, old.namespaces)


def check_all(catalog: Catalog) -> None:
    for old in OLD:
        if old.is_revoked or old.is_expired:
            with pytest.raises(Unauthenticated, match="revoked" if old.is_revoked else "expired"):
                identify_hash(catalog, old.secret_sha256)
            continue
        check_decisions(old, identify_hash(catalog, old.secret_sha256))


def test_every_token_decides_as_before(catalog: Catalog) -> None:
    check_all(catalog)


def test_a_token_sees_the_same_rows_as_before(catalog: Catalog) -> None:
    with catalog.read() as tx:
        for old in OLD:
            if old.is_revoked or old.is_expired:
                continue
            scope = read_scope(tx, identify_hash(catalog, old.secret_sha256))
            assert (scope.namespaces is None) == ("*" in old.namespaces)
            assert scope.is_member
            assert scope.names == ()


def test_every_token_is_listed_and_tokens_with_equal_names_are_distinguishable(catalog: Catalog) -> None:
    listed = list_tokens(catalog)

    assert [one.id for one in listed] == [one.id for one in OLD]
    assert [one.principal for one in listed] == [one.name for one in OLD]
    assert [one.revoked_at is not None for one in listed] == [one.is_revoked for one in OLD]
    assert [one.expires_at is not None for one in listed] == [one.is_expired for one in OLD]
    assert [(one.permissions, one.resources) for one in listed] == [
        ((one.role,), one.namespaces) for one in OLD
    ]
    assert len({(one.principal, one.name) for one in listed}) == len(OLD)


def test_rights_of_revoked_tokens_only_are_not_granted(catalog: Catalog) -> None:
    with catalog.read() as tx:
        for name in NAMES:
            own = [one for one in OLD if one.name == name and not one.is_revoked]
            token = next(record for record in OLD if record.name == name)
            found = tokens.find(tx, token.secret_sha256)
            assert found is not None
            granted = {(one.permission, str(one.resource)) for one in tokens.identity_of(tx, found).grants}
            assert granted == {(one.role, glob) for one in own for glob in one.namespaces}


def test_jobs_keep_the_rights_that_they_were_submitted_with(catalog: Catalog) -> None:
    with catalog.read() as tx:
        for old in OLD:
            row = tx.exec(select(JobRow).where(col(JobRow.id) == f"job-{old.id:016x}")).one()
            submitter = current_rights(tx, row.by, row.rights)
            assert tokens.is_revoked(tx, submitter) == old.is_revoked
            if not old.is_revoked:
                check_decisions(old, submitter)


def test_numbering_of_tokens_continues(old_catalog: Path, tmp_path: Path) -> None:
    shutil.copyfile(old_catalog, tmp_path / "catalog.sqlite")
    with closing(Catalog.open(tmp_path / "catalog.sqlite")) as catalog:
        create_token(catalog, "ada", "reader", ["acme"])
        *before, newest = list_tokens(catalog)

    assert newest.id > OLD[-1].id
    assert newest.name not in {one.name for one in before if one.principal == "ada"}


@pytest.mark.slow
def test_every_token_decides_as_before_on_postgresql(postgres: PostgresServer) -> None:
    from alembic import command
    from alembic.config import Config

    url = postgres.url(postgres.create_empty())
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "adaptry.storage.catalog:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0017")
        insert_old(connection)
    engine.dispose()
    with closing(Catalog(url)) as catalog:
        check_all(catalog)
        create_token(catalog, "ada", "reader", ["acme"])
        assert list_tokens(catalog)[-1].id > OLD[-1].id
