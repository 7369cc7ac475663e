"""What an identity can see, as conditions on rows: the one place where reading rules meet SQL.

Globs are matched by `Identity.holds` itself, against the namespaces there are, so that SQL has no second
opinion about them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_
from sqlmodel import col, select

from adaptry.catalog.database import Transaction
from adaptry.catalog.rows import AdapterRow, NamespaceRow
from adaptry.identity import Identity


@dataclass(frozen=True, slots=True)
class Sight:
    """The namespaces whose private adapters are seen; None is all of them. Public ones always are."""

    namespaces: tuple[str, ...] | None

    def of_adapters(self) -> ColumnElement[bool] | None:
        """The condition on `adapters` rows; None is no condition."""
        if self.namespaces is None:
            return None
        return or_(col(AdapterRow.visibility) == "public", col(AdapterRow.namespace).in_(self.namespaces))


def sight_of(tx: Transaction, identity: Identity) -> Sight:
    if "*" in identity.namespaces:
        return Sight(None)
    if all(glob.isalnum() for glob in identity.namespaces):
        return Sight(identity.namespaces)
    return Sight(tuple(name for name in tx.exec(select(NamespaceRow.name)) if identity.holds(name)))
