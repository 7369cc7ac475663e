"""The column `folded`: finds and corrects rows with a wrong value. Its purpose: see `case_conflicts`.

If several names differ only in case, one of them has the lower case, and the others have no value; neither
have free names.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, ColumnElement, Table, func, select, true

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.case_conflicts import fold
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, AliasRow, BaseNameRow, GitRefRow, NamespaceRow
from adaptry.storage.catalog.version_info import table_of


@dataclass(frozen=True, slots=True)
class _FoldedColumn:
    """A table of names: their column, the one within which they are unique, and which rows are in use."""

    table: Table
    name: Column[str]
    within: Column[int] | None
    is_used: ColumnElement[bool]

    def is_outdated(self) -> ColumnElement[bool]:
        """A row whose `folded` is not the lower case of a name in use."""
        folded = self.table.c.folded
        return folded.is_not(None) & (~self.is_used | (folded != func.lower(self.name)))

    def lacking(self) -> ColumnElement[bool]:
        """A row without a value whose lower case no other row has."""
        other = self.table.alias()
        same = other.c.folded == func.lower(self.name)
        if self.within is not None:
            same &= other.c[self.within.name] == self.within
        return self.is_used & self.table.c.folded.is_(None) & ~select(other.c.folded).where(same).exists()


_A, _N, _B = table_of(AdapterRow), table_of(NamespaceRow), table_of(BaseNameRow)
_L, _M = table_of(AliasRow), table_of(GitRefRow)
_EVERY = (
    _FoldedColumn(_N, _N.c.name, None, true()),
    _FoldedColumn(_A, _A.c.name, None, _A.c.deleted_at.is_(None)),
    _FoldedColumn(_B, _B.c.name, None, true()),
    _FoldedColumn(_L, _L.c.alias, _L.c.adapter_id, _L.c.version_id.is_not(None)),
    _FoldedColumn(_M, _M.c.name, _M.c.adapter_id, true()),
)


def misfolded(tx: Transaction) -> Iterator[tuple[str, str, str | None]]:
    """Every name with a wrong `folded`: its table, the name, and the value."""
    for names in _EVERY:
        query = select(names.name, names.table.c.folded).where(names.is_outdated() | names.lacking())
        for name, folded in tx.execute(query.order_by(names.name)):
            yield names.table.name, name, folded


def refold(tx: Transaction) -> None:
    """Corrects every name. If several names differ only in case and none has the value, the first one gets
    it.
    """
    for names in _EVERY:
        tx.execute(names.table.update().where(names.is_outdated()).values(folded=None))
        key = [names.name] if names.within is None else [names.within, names.name]
        given = set()
        for *group, name in tx.execute(select(*key).where(names.lacking()).order_by(*key)).all():
            if (*group, fold(name)) not in given:
                given.add((*group, fold(name)))
                which = [column == value for column, value in zip(key, (*group, name), strict=True)]
                tx.execute(names.table.update().where(*which).values(folded=fold(name)))
