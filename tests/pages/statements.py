"""The SQL statements that a page runs, for tests that bound them. On SQLite, prepared reads are not counted:
none of them waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, event
from tests.pages.browser import Browser

from adaptry.storage.catalog.postgres_reads import PostgresReads
from adaptry.storage.catalog.prepared import Query, definition_of

_TIMES = 5


def statements_of(browser: Browser, address: str) -> list[str]:
    """The statements of one more request for a page, after caches are filled. The server also runs statements
    in the background, for example to seal the audit log; the shortest of several lists has none of these.
    """
    assert browser.get(address).status == 200
    return min((_record(browser, address) for _ in range(_TIMES)), key=len)


def _record(browser: Browser, address: str) -> list[str]:
    statements: list[str] = []

    def keep(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    select = PostgresReads.select

    def keep_prepared(
        reads: PostgresReads, statement: Query, parameters: Mapping[str, object]
    ) -> Sequence[Any]:
        statements.append(str(definition_of(statement)))
        return select(reads, statement, parameters)

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        with patch.object(PostgresReads, "select", keep_prepared):  # these run on the driver
            assert browser.get(address).status == 200
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
    return statements
