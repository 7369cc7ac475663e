"""Asks PostgreSQL for its current snapshot without blocking, for use on an event loop.

Two equal snapshots see the same committed transactions (`pg_current_snapshot`: the oldest transaction under
way, the next number, and those under way in between). So nothing was committed between two equal answers.
After a crash, PostgreSQL may give a number again, to another transaction. The server process that answers is
then a new one, also behind a pooler, whose clients keep their connections. So its id is part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg.pq import ExecStatus

SNAPSHOT = "pg_backend_pid() || ' ' || pg_current_snapshot()"
_QUERY = f"SELECT {SNAPSHOT}".encode()
_RESULTS = 3  # per query: its row, its end, and the end of its transaction


class SnapshotProbe:
    """A connection for this query only. Several queries may be in flight; answers arrive in their order."""

    def __init__(self, connect: Callable[[], psycopg.Connection]) -> None:
        """Waits for the connection. Raises `OSError`, as all methods do if it breaks."""
        self._left = 0  # results that were not read yet
        try:
            self._connection = connect()
            self._libpq = self._connection.pgconn
            self._libpq.nonblocking = 1
            self._libpq.enter_pipeline_mode()
            self._socket = self._libpq.socket  # libpq does not report it once the connection is lost
        except psycopg.Error as error:
            raise ConnectionError(str(error)) from error

    def fileno(self) -> int:
        """A socket that is readable when there are answers."""
        return self._socket

    def ask(self) -> None:
        """Sends the query for the snapshot."""
        try:
            self._libpq.send_query_params(_QUERY, None)
            self._libpq.pipeline_sync()
            self._libpq.flush()
            self._left += _RESULTS
        except psycopg.Error as error:
            raise ConnectionError(str(error)) from error

    def answers(self) -> list[str]:
        """The answers that have arrived so far; may be empty. Does not block."""
        found = []
        try:
            self._libpq.flush()
            self._libpq.consume_input()
            while self._left and not self._libpq.is_busy():
                result = self._libpq.get_result()
                self._left -= 1
                if result is None or result.status == ExecStatus.PIPELINE_SYNC:
                    continue
                if result.status != ExecStatus.TUPLES_OK:
                    raise ConnectionError("PostgreSQL did not report its snapshot")
                found.append((result.get_value(0, 0) or b"").decode())
        except psycopg.Error as error:
            raise ConnectionError(str(error)) from error
        return found

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()
