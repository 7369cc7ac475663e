"""What an identity can see, as conditions on rows: the only place that turns read rules into SQL.

Globs of namespaces are matched in Python, against the existing namespaces, so that SQL cannot disagree about
them. In a namespace, `Identity.readable_names` are all names, a name, or prefixes of names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from adaptry.core.access.resources import ALL_NAMES
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import CombinedSelection, statement

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped

_GLOB = lazy_pattern(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class ReadScope:
    """The namespaces whose private adapters and bases are visible; None means all. Public ones are always
    visible, and internal bases are visible to members (`is_member`): those who may read any namespace.

    `names` are visible adapters in other namespaces: names, or prefixes followed by `*`.
    """

    namespaces: tuple[str, ...] | None
    is_member: bool = True
    names: tuple[str, ...] = ()

    def adapter_condition(self) -> sa.ColumnElement[bool] | None:
        """The condition on `adapters` rows; None means no condition."""
        if self.namespaces is None:
            return None
        named = (is_among(sm.col(orm.AdapterRow.name), names) for names in self.names)
        seen = (
            sm.col(orm.AdapterRow.visibility) == "public",
            sm.col(orm.AdapterRow.namespace).in_(self.namespaces),
        )
        return sa.or_(*seen, *named)

    def base_condition(self) -> sa.ColumnElement[bool] | None:
        """The condition on `bases` rows; None means no condition."""
        if self.namespaces is None:
            return None
        open_to_all = ("public", "internal") if self.is_member else ("public",)
        owned = sm.select(orm.BaseNameRow.base_id).where(
            sm.col(orm.BaseNameRow.namespace).in_(self.namespaces)
        )
        return sa.or_(sm.col(orm.BaseRow.visibility).in_(open_to_all), sm.col(orm.BaseRow.id).in_(owned))


EVERYTHING = ReadScope(None)


@statement
def _known_namespaces() -> CombinedSelection:
    return sa.select(tables.namespaces.c.name).union(sa.select(tables.base_names.c.namespace))


def is_among(column: Mapped[str], names: str) -> sa.ColumnElement[bool]:
    """Whether a column equals the name, or begins with the prefix if it ends in `*`."""
    if not names.endswith("*"):
        return column == names
    begin = names[:-1]
    return sa.and_(column >= begin, column < begin[:-1] + chr(ord(begin[-1]) + 1))


def read_scope(tx: Reads, identity: Identity) -> ReadScope:
    if identity.reads_everything:
        return EVERYTHING
    granted = {resource.namespaces for resource in identity.read_resources}
    globs = {text for text in granted if _GLOB.search(text)}
    namespaces = granted - globs
    if globs:
        known = {row.name for row in run_select(tx, _known_namespaces, {})}
        namespaces |= {name for name in known if any(fnmatchcase(name, glob) for glob in globs)}
    readable = [(namespace, identity.readable_names(namespace)) for namespace in sorted(namespaces)]
    return ReadScope(
        tuple(namespace for namespace, names in readable if ALL_NAMES in names),
        identity.is_member,
        tuple(
            f"{namespace}/{one}" for namespace, names in readable if ALL_NAMES not in names for one in names
        ),
    )
