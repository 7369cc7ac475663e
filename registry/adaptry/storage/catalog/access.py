"""What an identity can see, as conditions on rows: the one place where reading rules meet SQL.

Globs are matched by `Identity.has_namespace` itself, against the namespaces there are, so that SQL has no
second opinion about them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_
from sqlmodel import col, select

from adaptry.core.identity import Identity
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, BaseNameRow, BaseRow, NamespaceRow


@dataclass(frozen=True, slots=True)
class ReadScope:
    """The namespaces whose private adapters and bases are seen; None is all of them. Public ones always are,
    and internal bases by a `is_member`: whoever holds any namespace.
    """

    namespaces: tuple[str, ...] | None
    is_member: bool = True

    def adapter_condition(self) -> ColumnElement[bool] | None:
        """The condition on `adapters` rows; None is no condition."""
        if self.namespaces is None:
            return None
        return or_(col(AdapterRow.visibility) == "public", col(AdapterRow.namespace).in_(self.namespaces))

    def base_condition(self) -> ColumnElement[bool] | None:
        """The condition on `bases` rows; None is no condition."""
        if self.namespaces is None:
            return None
        open_to_all = ("public", "internal") if self.is_member else ("public",)
        owned = select(BaseNameRow.base_id).where(col(BaseNameRow.namespace).in_(self.namespaces))
        return or_(col(BaseRow.visibility).in_(open_to_all), col(BaseRow.id).in_(owned))


EVERYTHING = ReadScope(None)


def read_scope(tx: Transaction, identity: Identity) -> ReadScope:
    if "*" in identity.namespaces:
        return EVERYTHING
    is_member = bool(identity.namespaces)
    if all(glob.isalnum() for glob in identity.namespaces):
        return ReadScope(identity.namespaces, is_member)
    known = {*tx.exec(select(NamespaceRow.name)), *tx.exec(select(BaseNameRow.namespace).distinct())}
    return ReadScope(tuple(sorted(name for name in known if identity.has_namespace(name))), is_member)
