"""`Catalog`: an open database with an up-to-date schema, which gives transactions.

    with catalog.write() as tx:
        adapter = adapters.find(tx, name)

Opening migrates the schema, refuses one of a newer program, and checks that commits are durable. A writer
waits for the previous one, up to a time limit (`Unavailable`); readers see a snapshot and never wait.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from adaptry.core import tracing
from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.quotas import QuotaSubject
from adaptry.core.settings import is_postgres
from adaptry.storage.catalog import epochs, sqlite
from adaptry.storage.catalog.audit_log import recorder
from adaptry.storage.catalog.dialect import (
    BEFORE_COMMIT,
    HAS_EVENTS,
    HAS_INDEX_UPDATES,
    DatabaseDialect,
)
from adaptry.storage.catalog.epochs import Epoch
from adaptry.storage.catalog.lazy_modules import sa, sm
from adaptry.storage.catalog.migrate import migrate, schema_of
from adaptry.storage.catalog.notifier import CommitNotifier
from adaptry.storage.catalog.prepared import PreparedReads

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlmodel import Session

    from adaptry.storage.catalog.encoded_versions import EncodedVersions
    from adaptry.storage.catalog.postgres_probe import SnapshotProbe
    from adaptry.storage.catalog.request_use import RequestCharge

Transaction: TypeAlias = "Session"
"""A transaction, which the functions of this package take; opaque outside it."""
Result = TypeVar("Result")
Reads: TypeAlias = "Session | PreparedReads"
"""A transaction for functions that run only prebuilt statements (`version_info.run_select`)."""


class Catalog:
    """The database at `url`: `sqlite:///path`, `postgresql://…`, or `sqlite://` for one in memory that lives
    as long as this.
    """

    def __init__(self, url: str, busy_timeout: float = 30.0) -> None:
        """Raises `ProtocolMismatch` (newer schema), `Unavailable` (cannot be opened, or is not durable)."""
        self._database = _opened(url, busy_timeout)
        self._system = "postgresql" if is_postgres(url) else "sqlite"
        self.path = sqlite.path_of(url)
        """The SQLite file; None for PostgreSQL and in memory."""
        self.completes_index_updates = True
        """Whether a change whose search terms are updated afterwards (`index_updates`) returns when they are.
        A server updates them between its requests.
        """
        self.notifier = CommitNotifier(self._database.listen)
        # Closes a catalog that is garbage collected.
        self._release = weakref.finalize(self, self._database.hold())
        weakref.finalize(self, _dispose, self._database, self.notifier)
        with self._database.open_context(), self._errors_translated():
            migrate(self._database)

    @classmethod
    def open(cls, path: Path, busy_timeout: float = 30.0) -> Catalog:
        """The SQLite file at `path`, created if missing; its folder must exist."""
        return cls(f"sqlite:///{path.absolute()}", busy_timeout)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read-only transaction on a snapshot."""
        database = self._database
        with (
            database.read_context(),
            self._span("read"),
            self._errors_translated(),
            _session(database.readers) as session,
        ):
            yield session

    @contextmanager
    def read_prepared(self, *, is_search: bool = False, about: object = None) -> Iterator[Reads]:
        """Like `read`, for prebuilt statements: several times as fast if the database can prepare them
        (`has_prepared`). A search reads more pages, so it uses separate connections, which cache more pages.

        `about` (hashable) names reads that nearly always run the same statements. Where statements are round
        trips, those of the last read about it are sent together.
        """
        readers = self._database.prepared
        if readers is None:
            with self.read() as tx:
                yield tx
            return
        with self._span("read"), readers.read(is_search=is_search, about=about) as reads:
            yield reads

    def read_together(self) -> AbstractContextManager[object]:
        """During the block, prepared reads of this thread share one transaction if that makes them faster.
        Use it around functions that read the same rows.
        """
        readers = self._database.prepared
        return readers.read_together() if readers else nullcontext()

    def read_with_snapshot(
        self, read: Callable[[], Result], *, is_search: bool = False, about: object = None
    ) -> tuple[Result, str | None]:
        """The result of `read`, and the snapshot on which its prepared reads ran, in one transaction, as a
        `SnapshotProbe` reports it. The snapshot is None if nothing was read, or if the database is SQLite.
        `read` must begin with a prepared read: what it reads in other ways before may be older. `about`: see
        `read_prepared`.
        """
        readers = self._database.prepared
        if readers is None:
            return read(), None
        return readers.read_with_snapshot(read, is_search=is_search, about=about)

    @property
    def has_prepared(self) -> bool:
        """Whether `read_prepared` is faster than `read`."""
        return self._database.prepared is not None

    @property
    def is_local(self) -> bool:
        """Whether reads wait only for this machine's disk."""
        return self._system == "sqlite"

    def last_commit(self) -> int | None:
        """A number that changes with each commit of any process; None if it is unknown or finding it would
        block. Call it from one thread at a time.
        """
        readers = self._database.prepared
        return readers.last_commit() if readers else None

    def open_probe(self) -> SnapshotProbe | None:
        """Answers the same on an event loop, for databases whose `last_commit` is None. Raises `OSError`."""
        readers = self._database.prepared
        return readers.open_probe() if readers else None

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block, or rolls back if the block raises an error.

        It holds the write lock from its beginning, so what it reads stays true until it commits.
        """
        with self._transaction(is_durable=True) as session:
            yield session

    @contextmanager
    def write_nondurable(self) -> Iterator[Transaction]:
        """Like `write`, without waiting for the disk: a power failure may undo the whole transaction,
        but no earlier one.
        """
        with self._transaction(is_durable=False) as session:
            yield session

    def write_each(self, changes: Sequence[Callable[[Transaction], Result]]) -> list[Result | Exception]:
        """Runs each change in a transaction like those of `write`. Returns the result of each, or the error
        for which it was undone. The transactions are committed together if the database supports it. Raises
        the errors of `write` if no transaction can begin.
        """
        if (together := self._database.write_each) is None:
            return [self._outcome(change) for change in changes]
        has_events = has_index_updates = False

        def run(change: Callable[[Transaction], Result], session: Transaction) -> Result:
            nonlocal has_events, has_index_updates
            result = change(session)
            _write_pending(session)
            has_index_updates |= HAS_INDEX_UPDATES in session.info
            if HAS_EVENTS in session.info:
                self._database.notify(session)
                has_events = True
            return result

        with self._span("write"), self._errors_translated():
            outcomes = together([partial(run, change) for change in changes])
        if has_events:
            self.notifier.notify()
        if has_index_updates:
            self._complete_index_updates()
        return [self._translated(one) if isinstance(one, Exception) else one for one in outcomes]

    @property
    def writes_together(self) -> bool:
        """Whether `write_each` commits its transactions together."""
        return self._database.write_each is not None

    def _outcome(self, change: Callable[[Transaction], Result]) -> Result | Exception:
        try:
            with self.write() as tx:
                return change(tx)
        except Exception as error:  # noqa: BLE001  (the caller raises it)
            return error

    def _translated(self, found: Exception) -> Exception:
        try:
            with self._errors_translated():
                raise found
        except Exception as error:  # noqa: BLE001  (the caller raises it)
            return error

    def charge_requests(self, charges: Iterable[RequestCharge]) -> dict[QuotaSubject, float]:
        """Shares requests with the registry's other processes (`request_use.charge`). Waits for no other
        transaction of the catalog. Raises `Unavailable`.
        """
        from adaptry.storage.catalog import request_use

        with self._errors_translated(), self._counters.begin() as connection:
            return request_use.charge(connection, charges)

    @cached_property
    def _counters(self) -> Engine:
        return self._database.open_counters()

    @cached_property
    def encoded_versions(self) -> EncodedVersions:
        """The JSON of versions that searches have shown."""
        from adaptry.storage.catalog.encoded_versions import EncodedVersions  # only searches need it

        return EncodedVersions()

    def require_writable(self) -> None:
        """Raises `ReadOnly` if no change is possible. Call it before storing bytes that rows will name."""

    def schema(self) -> str:
        """The number of its schema, as `migrate` counts them."""
        with self._errors_translated(), self._database.readers.connect() as connection:
            return str(schema_of(connection))

    @cached_property
    def epoch(self) -> Epoch:
        """The registry's epoch. A new one begins only while no process has the catalog open."""
        with self.read() as tx:
            return epochs.current(tx)

    def copy_to(self, target: Path) -> None:
        """Copies a snapshot of a catalog to a file. Raises `StorageFull`, `Unavailable`, `CorruptData`."""
        assert self.path is not None, "only a file is copied"
        try:
            sqlite.copy(self.path, target)
        except sqlite3.Error as error:
            raise self._database.translate_error(error) or error from error

    def check(self) -> None:
        """Raises `Unavailable` if the database does not answer."""
        with self._errors_translated(), self._database.readers.connect() as connection:
            connection.execute(sa.select(1))

    def shrink(self) -> None:
        """Frees memory of connections that are not in use; their next reads take a millisecond more."""
        self._database.shrink()

    def close(self) -> None:
        """Closes the database's files and connections."""
        self.notifier.close()
        self._database.dispose()
        if "_counters" in vars(self):
            self._counters.dispose()
        self._release()

    @contextmanager
    def _transaction(self, *, is_durable: bool) -> Iterator[Transaction]:
        database = self._database
        with self._span("write"), self._errors_translated(), database.write(is_durable) as session:
            yield session
            _write_pending(session)
            if HAS_EVENTS in session.info:
                database.notify(session)
        if HAS_EVENTS in session.info:
            self.notifier.notify()
        if HAS_INDEX_UPDATES in session.info:
            self._complete_index_updates()

    def _complete_index_updates(self) -> None:
        """Completes index updates. If an error stops it, the rest is done after the next such change, or by a
        server.
        """
        if self.completes_index_updates:
            from adaptry.storage.catalog import index_updates  # only for edits of large adapters

            with suppress(AdaptryError):
                index_updates.complete(self)

    def _span(self, operation: str) -> AbstractContextManager[tracing.Span]:
        attributes = {"db.system.name": self._system, "db.operation.name": operation}
        return tracing.span(
            f"catalog {operation}", attributes, kind="client", seconds=tracing.DATABASE_SECONDS
        )

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Turns the driver's errors into ours; programming errors pass as they are."""
        try:
            yield
        except AdaptryError:
            raise
        except self._database.driver_error as error:  # raised by a prepared statement
            raise self._database.translate_error(error) or error from error
        except sa.exc.TimeoutError as error:
            raise Unavailable("the registry's database is overloaded; try again in a moment") from error
        except sa.exc.DBAPIError as error:
            translated = self._database.translate_error(error.orig) if error.orig else None
            if translated:
                raise translated from error
            raise


def _opened(url: str, busy_timeout: float) -> DatabaseDialect:
    if is_postgres(url):
        from adaptry.storage.catalog import postgres

        return postgres.open_database(url, busy_timeout)
    return sqlite.open_database(url, busy_timeout)


def _write_pending(session: Transaction) -> None:
    """Makes the writes that functions have deferred to the end of the transaction."""
    for write in session.info.pop(BEFORE_COMMIT, ()):
        write(session)
    recorder.write_pending(session)


def _dispose(database: DatabaseDialect, notifier: CommitNotifier) -> None:
    notifier.stop()
    database.dispose()


def _session(engine: Engine) -> Session:
    # Rows are read within their transaction and turned into values, so they need no refresh.
    return sm.Session(engine, expire_on_commit=False, autoflush=True)
