"""The SQL statements that a page runs, for tests that bound them."""

from __future__ import annotations

from sqlalchemy import Engine, event
from tests.pages.browser import Browser


def statements_of(browser: Browser, address: str) -> list[str]:
    """The statements of showing a page once more; the first time fills caches of the process."""
    statements: list[str] = []

    def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "audit_" not in statement:  # the server seals its audit log meanwhile
            statements.append(statement)

    browser.get(address)
    event.listen(Engine, "before_cursor_execute", count)
    try:
        assert browser.get(address).status == 200
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    return statements
