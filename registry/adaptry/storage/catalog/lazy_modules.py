"""SQLAlchemy, SQLModel and our tables, imported when something of them is first used.

Importing them takes longer than most commands on a folder. Those run only statements whose texts are stored
(`statement_texts`), so the modules of the catalog import these names instead: `sa.select`, `orm.AdapterRow`,
`tables.adapters`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["orm", "sa", "sm", "tables"]


class _LazyModule:
    """A module that is imported at the first use of one of its names, which are looked up once. Safe to use
    from many threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """(`Any`: whatever the module has.)"""
        found = getattr(import_module(self._name), name)
        setattr(self, name, found)
        return found


class _Tables:
    """Our tables, by their names."""

    def __getattr__(self, name: str) -> sa.Table:
        try:
            found = orm.Row.metadata.tables[name]
        except KeyError:
            raise AttributeError(f"there is no table {name!r}") from None
        setattr(self, name, found)
        return found


tables = _Tables()

if TYPE_CHECKING:
    import sqlalchemy as sa
    import sqlmodel as sm

    from adaptry.storage.catalog import rows as orm
else:
    sa, sm = _LazyModule("sqlalchemy"), _LazyModule("sqlmodel")
    orm = _LazyModule("adaptry.storage.catalog.rows")
