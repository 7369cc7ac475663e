"""What an identity can see, as conditions on rows: the only place that turns read rules into SQL.

Globs of namespaces are matched in Python, against the existing namespaces, so that SQL cannot disagree about
them. In a namespace, `Identity.readable_names` are all names, a name, or prefixes of names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy import select as select_columns
from sqlalchemy.orm import Mapped
from sqlmodel import col, select

from adaptry.core.access.resources import ALL_NAMES
from adaptry.core.identity import Identity
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow, BaseNameRow, BaseRow, NamespaceRow

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class ReadScope:
    """The namespaces whose private adapters and bases are visible; None means all. Public ones are always
    visible, and internal bases are visible to members (`is_member`): those who may read any namespace.

    `names` are visible adapters in other namespaces: names, or prefixes followed by `*`.
    """

    namespaces: tuple[str, ...] | None
    is_member: bool = True
    names: tuple[str, ...] = ()

    def adapter_condition(self) -> ColumnElement[bool] | None:
        """The condition on `adapters` rows; None means no condition."""
        if self.namespaces is None:
            return None
        named = (is_among(col(AdapterRow.name), names) for names in self.names)
        seen = (col(AdapterRow.visibility) == "public", col(AdapterRow.namespace).in_(self.namespaces))
        return or_(*seen, *named)

    def base_condition(self) -> ColumnElement[bool] | None:
        """The condition on `bases` rows; None means no condition."""
        if self.namespaces is None:
            return None
        open_to_all = ("public", "internal") if self.is_member else ("public",)
        owned = select(BaseNameRow.base_id).where(col(BaseNameRow.namespace).in_(self.namespaces))
        return or_(col(BaseRow.visibility).in_(open_to_all), col(BaseRow.id).in_(owned))


EVERYTHING = ReadScope(None)
_KNOWN = select_columns(col(NamespaceRow.name)).union(select_columns(col(BaseNameRow.namespace)))


def is_among(column: Mapped[str], names: str) -> ColumnElement[bool]:
    """Whether a column equals the name, or begins with the prefix if it ends in `*`."""
    if not names.endswith("*"):
        return column == names
    begin = names[:-1]
    return and_(column >= begin, column < begin[:-1] + chr(ord(begin[-1]) + 1))


def read_scope(tx: Reads, identity: Identity) -> ReadScope:
    if identity.reads_everything:
        return EVERYTHING
    granted = {resource.namespaces for resource in identity.read_resources}
    globs = {text for text in granted if _GLOB.search(text)}
    namespaces = granted - globs
    if globs:
        known = {row.name for row in run_select(tx, _KNOWN, {})}
        namespaces |= {name for name in known if any(fnmatchcase(name, glob) for glob in globs)}
    readable = [(namespace, identity.readable_names(namespace)) for namespace in sorted(namespaces)]
    return ReadScope(
        tuple(namespace for namespace, names in readable if ALL_NAMES in names),
        identity.is_member,
        tuple(
            f"{namespace}/{one}" for namespace, names in readable if ALL_NAMES not in names for one in names
        ),
    )
