"""Read-only transactions of prepared statements on PostgreSQL, without a session.

A transaction about the same thing as an earlier one nearly always runs the same statements. It sends all of
them with the first, so that it takes one round trip. Its code asks for rows as usual, and finds those of an
expected statement with the same parameters; a statement that was not expected is sent when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from sqlalchemy import String, literal_column, select

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.postgres_pipeline import is_stale, postgres_statement
from adaptry.storage.catalog.postgres_probe import SNAPSHOT
from adaptry.storage.catalog.postgres_reader import PostgresReader, Sent
from adaptry.storage.catalog.prepared import ErrorTranslator, PreparedReads, Query, key_of

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_MAX_SUBJECTS = 1024  # subjects whose statements are remembered
_MAX_STATEMENTS = 24  # per subject
_MAX_PARAMETERS = 24  # per statement
_MAX_PARAMETER_LENGTH = 256  # characters or elements of a parameter
_SNAPSHOT = select(literal_column(SNAPSHOT, String).label("snapshot"))
Key: TypeAlias = "tuple[Any, ...]"
"""A statement and its parameters (`key_of`). (`Any`: values of any type.)"""


class PostgresReads(PreparedReads):
    """A read-only transaction of prepared reads, on a snapshot, which begins with the first of them."""

    is_postgres = True

    def __init__(
        self,
        open_reader: Callable[[], PostgresReader],
        translate_error: ErrorTranslator,
        *,
        is_search: bool = False,
        reports_snapshot: bool = False,
    ) -> None:
        """`reports_snapshot`: whether the first statement also reads the snapshot, for `snapshot`."""
        self._open = open_reader
        self._is_search = is_search
        self._reports_snapshot = reports_snapshot
        self._translate_error = translate_error
        self.reader: PostgresReader | None = None
        self._snapshot: str | None = None

    def kept(self, kind: str) -> dict[Any, Any]:
        """As in `PreparedReads`; PostgreSQL's own snapshot shows whether it equals an earlier one.

        (`Any`: keys and values of this kind.)
        """
        if self._snapshot is None:
            ((self._snapshot,),) = self.select(_SNAPSHOT, {})
        assert self.reader is not None and self._snapshot is not None
        return self.reader.kept(self._snapshot, kind)

    @property
    def snapshot(self) -> str | None:
        """The snapshot, as a `SnapshotProbe` reports it, if `reports_snapshot`; None if nothing has been
        read.
        """
        return self._snapshot

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        compiled = postgres_statement(statement)
        sent = [(compiled, compiled.values(parameters))]
        try:
            reader, (result,) = self._run(sent)
            return compiled.rows(reader.loader, result)
        except psycopg.Error as error:
            raise self._our_error(error) from error

    def select_all(self, asked: Sequence[tuple[Query, Mapping[str, object]]]) -> list[Sequence[Any]]:
        """The rows of several statements with their parameters, in one round trip."""
        compiled = [postgres_statement(statement) for statement, _ in asked]
        sent = [(one, one.values(given)) for one, (_, given) in zip(compiled, asked, strict=True)]
        try:
            reader, results = self._run(sent)
            return [one.rows(reader.loader, result) for one, result in zip(compiled, results, strict=True)]
        except psycopg.Error as error:
            raise self._our_error(error) from error

    def _run(self, sent: Sequence[Sent]) -> tuple[PostgresReader, Sequence[PGresult]]:
        if self.reader is not None:
            return self.reader, self.reader.run(sent)
        self.reader, results = self._begun(sent)
        return self.reader, results

    def _our_error(self, error: psycopg.Error) -> Exception:
        if self.reader is not None and self.reader.lost_prepared_statement(error):
            return Unavailable("the pooler in front of PostgreSQL loses prepared statements; try again")
        return self._translate_error(error) or error

    def _begun(self, sent: Sequence[Sent]) -> tuple[PostgresReader, Sequence[PGresult]]:
        """Begins the transaction with its first statements. A connection that broke while it was idle is
        replaced.
        """
        while True:
            reader = self._open()
            try:
                reader.begin(is_search=self._is_search)
                if not self._reports_snapshot:
                    return reader, reader.run(sent)
                first, *results = reader.run([(postgres_statement(_SNAPSHOT), ()), *sent])
                self._snapshot = (first.get_value(0, 0) or b"").decode()
                return reader, results
            except psycopg.Error as error:
                reader.close()
                if not reader.lost_prepared_statement(error) and (reader.is_new or not is_stale(error)):
                    raise
            except BaseException:  # it goes on in a thread, or its request was cancelled
                reader.close()
                raise


class RepeatedPostgresReads(PostgresReads):
    """A transaction for several functions, or like an earlier one: equal statements run once, since their
    rows cannot differ. With the first statement, it sends all expected ones. `asked`: the keys of its
    statements (`key_of`).
    """

    def __init__(self, expected: Sequence[Key], *of_transaction: Any, **options: Any) -> None:
        """(`Any`: the arguments of `PostgresReads`.)"""
        super().__init__(*of_transaction, **options)
        self._results: dict[Key, Sequence[Any]] = {}
        self._expected = expected
        self.asked: dict[Key, None] = {}

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        """(`Any`: named tuples of the statement's columns.)"""
        if self._expected:
            expected, self._expected = self._expected, ()
            self._results.update(zip(expected, self.select_all(list(map(_asked, expected))), strict=True))
        key = key_of(statement, parameters)
        self.asked[key] = None
        rows = self._results.get(key)
        if rows is None:
            rows = self._results[key] = super().select(statement, parameters)
        return rows


def _asked(key: Key) -> tuple[Query, dict[str, object]]:
    """The statement and the parameters of a key."""
    count = len(key) // 2
    return key[0], dict(zip(key[1 : count + 1], key[count + 1 :], strict=True))


class LastStatements:
    """The statements of the last transaction about each subject."""

    def __init__(self) -> None:
        self._of: dict[object, tuple[Key, ...]] = {}

    def about(self, subject: object) -> Sequence[Key]:
        return self._of.get(subject, ())

    def forget(self, subject: object) -> None:
        self._of.pop(subject, None)

    def note(self, subject: object, asked: Collection[Key]) -> None:
        """Remembers the statements if they and their parameters are few and short, since callers choose the
        subjects.
        """
        if len(asked) > _MAX_STATEMENTS or any(map(_is_long, asked)):
            return
        if len(self._of) >= _MAX_SUBJECTS:
            self._of.clear()
        self._of[subject] = tuple(asked)


def _is_long(key: Key) -> bool:
    return len(key) // 2 > _MAX_PARAMETERS or any(
        isinstance(value, Sized) and len(value) > _MAX_PARAMETER_LENGTH for value in key[1:]
    )
