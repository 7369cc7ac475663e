"""Which statements a page sends to the database, in the process of its server."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.engine import Engine

_TIMES = 5


def statements_of(load: Callable[[], object]) -> list[str]:
    """The statements of `load`, once caches are filled. Servers of this process send others meanwhile,
    every few seconds: the shortest of several lists has none of them.
    """
    load()
    return min((_record(load) for _ in range(_TIMES)), key=len)


def _record(load: Callable[[], object]) -> list[str]:
    statements: list[str] = []

    def keep(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        load()
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
    return statements
