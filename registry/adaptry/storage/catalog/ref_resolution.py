"""Resolves refs: one statement from a name and its selector to the version's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, bindparam, select

from adaptry.core.errors import Conflict
from adaptry.core.lifecycle import LATEST
from adaptry.core.refs import ByDigest, Ref, Selector
from adaptry.storage.catalog.adapter_rows import visibility_of
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.ref_query import ref_query
from adaptry.storage.catalog.rows import AdapterRow, AliasRow, VersionRow
from adaptry.storage.catalog.version_info import SHOWN, Columns, table_of
from adaptry.storage.catalog.versions import VersionRecord, to_record

_ADAPTERS, _VERSIONS, _ALIASES = table_of(AdapterRow), table_of(VersionRow), table_of(AliasRow)


@dataclass(frozen=True, slots=True)
class ResolvedRef:
    """The adapter that a ref names, and the columns of the versions that match: none, one, or the first
    two.
    """

    adapter: AdapterRecord
    versions: tuple[Columns, ...]

    def version(self, selector: Selector) -> Columns | None:
        """Raises `Conflict` for a digest prefix that several versions share."""
        if len(self.versions) > 1:
            assert isinstance(selector, ByDigest)
            raise Conflict(
                f"{self.adapter.name} has several versions that begin with {selector.prefix};"
                " give more digits"
            )
        return self.versions[0] if self.versions else None


def _statement(found: FromClause, is_meant: ColumnElement[bool]) -> Select[Any]:
    """The adapter named, with the version meant or without one. (`Any`: rows are typed by their columns.)"""
    return (
        select(_ADAPTERS.c.id.label("adapter_key"), _ADAPTERS.c.visibility, *SHOWN)
        .select_from(found.outerjoin(_VERSIONS, is_meant))
        .where(_ADAPTERS.c.name == bindparam("name"), _ADAPTERS.c.deleted_at.is_(None))
    )


_OF_LINE = _VERSIONS.c.adapter_id == _ADAPTERS.c.id
NEWEST_ACTIVE = (
    _statement(_ADAPTERS, and_(_OF_LINE, _VERSIONS.c.state.in_(LATEST)))
    .order_by(_VERSIONS.c.number.desc())
    .limit(1)
)
BY_NUMBER = _statement(_ADAPTERS, and_(_OF_LINE, _VERSIONS.c.number == bindparam("number")))
BY_LABEL = _statement(
    _ADAPTERS.outerjoin(
        _ALIASES, and_(_ALIASES.c.adapter_id == _ADAPTERS.c.id, _ALIASES.c.alias == bindparam("alias"))
    ),
    _VERSIONS.c.id == _ALIASES.c.version_id,
)
BY_DIGEST = _statement(
    _ADAPTERS,
    and_(_OF_LINE, _VERSIONS.c.digest >= bindparam("prefix"), _VERSIONS.c.digest < bindparam("beyond")),
).limit(2)


def resolve_ref(tx: Reads, ref: Ref) -> ResolvedRef | None:
    """The target; None if there is no such adapter."""
    rows = run_select(tx, *ref_query(ref))
    if not rows:
        return None
    adapter = AdapterRecord(rows[0].adapter_key, ref.name, visibility_of(rows[0].visibility))
    return ResolvedRef(adapter, tuple(row for row in rows if row.id is not None))


def find(tx: Reads, adapter: AdapterRecord, selector: Selector) -> VersionRecord | None:
    """The current version of a selector. Raises `Conflict` for a digest prefix that several versions
    share.
    """
    resolved = resolve_ref(tx, Ref(adapter.name, selector))
    columns = resolved.version(selector) if resolved else None
    return to_record(columns) if columns else None
