"""Waiting writers are committed together, on both databases; if one fails, only its changes are undone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.group_commit import GroupCommit
from adaptry.storage.catalog.postgres_writes import PostgresGroupConnection, PostgresWriterConnection
from adaptry.storage.catalog.prepared import driver_of
from adaptry.storage.catalog.sqlite_writer import SqliteGroupConnection, WriterConnection
from adaptry.testing.postgres import PostgresServer

Change = Callable[[Session], None]


TABLE = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY, of INTEGER REFERENCES items DEFERRABLE INITIALLY DEFERRED)"
)


class Writers:
    """Writers of a database with the table `items`. `error` is raised by its driver."""

    group: GroupCommit
    error: type[Exception]
    commits: int
    """The number of transactions that were committed."""

    @property
    def items(self) -> list[int]:
        """The committed items."""
        raise NotImplementedError

    def limit(self, timeout: float) -> None:
        """From now on, writers wait at most this many seconds."""
        self.group = GroupCommit(self.group._connection, timeout)

    def together(self, *changes: Change) -> list[Future[None]]:
        """Makes each change by a separate writer, in this order. The first one keeps its turn until the
        others wait.
        """
        has_turn, may_go_on = Event(), Event()

        def first(session: Session) -> None:
            has_turn.set()
            assert may_go_on.wait(30)
            changes[0](session)

        with ThreadPoolExecutor(len(changes)) as pool:
            done = [pool.submit(self.write, first)]
            assert has_turn.wait(30)
            for number, change in enumerate(changes[1:], start=1):
                done.append(pool.submit(self.write, change))
                while self.group.waiting < number:
                    os.sched_yield()
            may_go_on.set()
        return done

    def write(self, change: Change, *, is_durable: bool = True) -> None:
        with self.group.write(is_durable) as session:
            change(session)


class SqliteWriters(Writers):
    error = sqlite3.IntegrityError

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(TABLE)
        self.group = GroupCommit(SqliteGroupConnection(self.connect), 30)

    def connect(self) -> WriterConnection:
        connection = sqlite3.connect(self.path, check_same_thread=False, factory=WriterConnection)
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.set_trace_callback(self._count)
        return connection

    def _count(self, statement: str) -> None:
        self.commits += statement == "COMMIT"

    @property
    def items(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [id for (id,) in connection.execute("SELECT id FROM items ORDER BY id")]


class CountingConnection(PostgresGroupConnection):
    """Counts commits."""

    commits = 0

    def commit(self) -> None:
        super().commit()
        self.commits += 1


class PostgresWriters(Writers):
    error = psycopg.IntegrityError

    def __init__(self, server: PostgresServer) -> None:
        self.server, self.name = server, server.create_empty()
        server.execute(TABLE, self.name)
        self.connection = CountingConnection(self.connect, "SELECT pg_advisory_xact_lock(1)")
        self.group = GroupCommit(self.connection, 30)

    def connect(self) -> PostgresWriterConnection:
        return PostgresWriterConnection.connect(
            self.server.url(self.name), autocommit=True, prepare_threshold=None
        )

    @property
    def commits(self) -> int:  # type: ignore[override]  # counted by the connection
        return self.connection.commits

    @property
    def items(self) -> list[int]:
        rows = self.server.execute("SELECT id FROM items ORDER BY id", self.name)
        return [id for (id,) in rows if isinstance(id, int)]


@pytest.fixture
def sqlite_writers(tmp_path: Path) -> Iterator[SqliteWriters]:
    writers = SqliteWriters(tmp_path / "items.sqlite")
    yield writers
    writers.group.close()


@pytest.fixture
def postgres_writers(postgres: PostgresServer) -> Iterator[PostgresWriters]:
    writers = PostgresWriters(postgres)
    yield writers
    writers.group.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def writers(request: pytest.FixtureRequest) -> Writers:
    kind = "sqlite_writers" if request.param == "sqlite" else "postgres_writers"
    found: Writers = request.getfixturevalue(kind)
    return found


def inserts(id: int, *, words: str = "INSERT", of: int | None = None) -> Change:
    statement = text(f"{words} INTO items (id, of) VALUES (:id, :of)")
    return lambda session: session.execute(statement, {"id": id, "of": of}) and None


def inserts_prepared(id: int) -> Change:
    def change(session: Session) -> None:
        driver = driver_of(session)
        statement = f"INSERT INTO items (id) VALUES ({id})"
        if isinstance(driver, sqlite3.Connection):
            driver.execute(statement)
        elif driver is not None:
            driver.run(statement.encode())

    return change


def test_writers_that_wait_are_committed_together(writers: Writers) -> None:
    for done in writers.together(*map(inserts, range(8))):
        done.result()
    assert writers.items == [*range(8)]
    assert writers.commits == 1


def test_transactions_in_one_turn_are_committed_together_without_the_one_that_fails(writers: Writers) -> None:
    first, repeated, last = writers.group.write_each([inserts(1), inserts(1), inserts(2)])
    assert (first, last) == (None, None)
    assert isinstance(repeated, IntegrityError)
    assert (writers.items, writers.commits) == ([1, 2], 1)


def test_if_the_commit_of_one_turn_fails_all_its_transactions_fail(writers: Writers) -> None:
    outcomes = writers.group.write_each([inserts(1), inserts(2, of=99)])
    first, second = outcomes
    assert first is not second  # two threads raise them
    assert isinstance(first, writers.error)
    assert isinstance(second, writers.error)
    assert first.__cause__ is second.__cause__
    codes = [getattr(one, "sqlite_errorcode", None) or getattr(one, "sqlstate", None) for one in outcomes]
    assert codes[0] == codes[1] is not None
    assert first.args == second.args
    assert writers.items == []
    assert writers.group.write_each([inserts(3)]) == [None]
    assert writers.items == [3]


def test_if_a_change_ends_the_transaction_all_changes_of_its_turn_fail(writers: Writers) -> None:
    def ends(session: Session) -> None:
        session.execute(text("ROLLBACK"))
        raise ValueError("ended")

    outcomes = writers.group.write_each([inserts(1), ends, inserts(2)])
    assert [str(one) for one in outcomes] == ["ended"] * 3
    assert writers.items == []


def test_a_single_writer_is_committed_alone(writers: Writers) -> None:
    writers.write(inserts(1))
    writers.write(inserts(2), is_durable=False)
    assert (writers.items, writers.commits) == ([1, 2], 2)


def test_a_writers_error_caused_by_another_writer_is_raised_after_the_commit(writers: Writers) -> None:
    seen: list[int] = []
    has_raised = Event()

    def fails(session: Session) -> None:
        inserts(1)(session)

    def last(session: Session) -> None:
        assert not has_raised.wait(0.2), "it raised because of what nobody can see yet"
        inserts(3)(session)

    def write_and_look() -> None:
        try:
            writers.write(fails)
        finally:
            has_raised.set()
            seen.extend(writers.items)

    has_turn, may_go_on = Event(), Event()

    def first(session: Session) -> None:
        has_turn.set()
        assert may_go_on.wait(30)
        inserts(1)(session)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(writers.write, first)]
        assert has_turn.wait(30)
        for number, work in enumerate((write_and_look, lambda: writers.write(last)), start=1):
            done.append(pool.submit(work))
            while writers.group.waiting < number:
                os.sched_yield()
        may_go_on.set()
    done[0].result()
    done[2].result()
    with pytest.raises(IntegrityError):
        done[1].result()
    assert seen == [1, 3]


def test_an_error_of_one_writer_undoes_only_its_changes(writers: Writers) -> None:
    def fails(session: Session) -> None:
        inserts(2)(session)
        raise KeyError("no")

    one, two, three = writers.together(inserts(1), fails, inserts(3))
    one.result()
    three.result()
    with pytest.raises(KeyError):
        two.result()
    assert (writers.items, writers.commits) == ([1, 3], 1)


@pytest.mark.parametrize("fails_by", [KeyError, IntegrityError])
def test_changes_by_prepared_statements_are_undone_with_their_writer(
    writers: Writers, fails_by: type[Exception]
) -> None:
    def fails(session: Session) -> None:
        inserts_prepared(2)(session)
        if fails_by is KeyError:
            raise KeyError("no")
        inserts(1)(session)

    def mixed(session: Session) -> None:
        inserts_prepared(3)(session)
        inserts(4)(session)
        inserts_prepared(5)(session)

    one, two, three, four = writers.together(inserts(1), fails, mixed, inserts_prepared(6))
    for done in (one, three, four):
        done.result()
    with pytest.raises(fails_by):
        two.result()
    assert (writers.items, writers.commits) == ([1, 3, 4, 5, 6], 1)


def test_no_writer_returns_as_if_it_were_committed_when_the_commit_fails(writers: Writers) -> None:
    for done in writers.together(inserts(1), inserts(2, of=99), inserts(3)):
        with pytest.raises(writers.error):
            done.result()
    assert writers.items == []
    writers.write(inserts(4))
    assert writers.items == [4]


def test_a_rollback_by_the_database_fails_all_writers_of_the_group(sqlite_writers: SqliteWriters) -> None:
    """The database rolls back like this when the disk is full."""
    writers = sqlite_writers
    one, two, three = writers.together(inserts(1), inserts(1, words="INSERT OR ROLLBACK"), inserts(3))
    for done in (one, two):
        with pytest.raises(IntegrityError):
            done.result()
    three.result()
    assert writers.items == [3]


def test_a_writer_that_waits_too_long_is_refused_and_delays_no_other(writers: Writers) -> None:
    writers.limit(0.01)

    def waits(session: Session) -> None:
        with ThreadPoolExecutor(1) as pool, pytest.raises(Unavailable, match="busy with another writer"):
            pool.submit(writers.write, inserts(2)).result()
        inserts(1)(session)

    writers.write(waits)
    writers.write(inserts(3))
    assert writers.items == [1, 3]


def test_an_error_of_a_change_that_was_not_waited_for_is_its_own_writers(
    postgres_writers: PostgresWriters,
) -> None:
    writers = postgres_writers
    changes = [inserts_prepared(1), inserts_prepared(1), inserts_prepared(2), inserts(3)]
    one, repeated, two, three = writers.together(*changes)
    with pytest.raises(psycopg.errors.UniqueViolation):
        repeated.result()
    for done in (one, two, three):
        done.result()
    assert (writers.items, writers.commits) == ([1, 2, 3], 1)
    writers.write(inserts_prepared(4))
    assert writers.items == [1, 2, 3, 4]


def test_all_writers_of_a_group_fail_if_the_connection_is_lost(postgres_writers: PostgresWriters) -> None:
    writers = postgres_writers

    def loses(session: Session) -> None:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    one, two, three = writers.together(inserts(1), loses, inserts(3))
    for done in (one, two):
        with pytest.raises(Exception, match="terminating connection"):
            done.result()
    three.result()
    assert writers.items == [3]
