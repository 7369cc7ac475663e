"""Resolves refs: one statement from names and their selectors to the versions' columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    and_,
    bindparam,
    literal_column,
    select,
    union_all,
)

from adaptry.core.errors import Conflict
from adaptry.core.lifecycle import LATEST
from adaptry.core.refs import ByDigest, Label, Latest, Number, Ref, Selector
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


def resolve_ref(tx: Reads, ref: Ref) -> ResolvedRef | None:
    """The target; None if there is no such adapter."""
    return _resolved(ref, run_select(tx, *ref_query(ref)))


def resolve_refs(tx: Reads, refs: Sequence[Ref]) -> list[ResolvedRef | None]:
    """The targets of several refs, in their order, in one statement."""
    if not refs:
        return []
    values = {
        f"{name}_{at}": value for at, ref in enumerate(refs) for name, value in ref_query(ref)[1].items()
    }
    found: list[list[Columns]] = [[] for _ in refs]
    for row in run_select(tx, _selection_of(tuple(type(ref.selector) for ref in refs)), values):
        found[row.at].append(row)
    return [_resolved(ref, rows) for ref, rows in zip(refs, found, strict=True)]


def find(tx: Reads, adapter: AdapterRecord, selector: Selector) -> VersionRecord | None:
    """The current version of a selector. Raises `Conflict` for a digest prefix that several versions
    share.
    """
    resolved = resolve_ref(tx, Ref(adapter.name, selector))
    columns = resolved.version(selector) if resolved else None
    return to_record(columns) if columns else None


def _resolved(ref: Ref, rows: Sequence[Columns]) -> ResolvedRef | None:
    if not rows:
        return None
    adapter = AdapterRecord(rows[0].adapter_key, ref.name, visibility_of(rows[0].visibility))
    return ResolvedRef(adapter, tuple(row for row in rows if row.id is not None))


def _selection(kind: type[Selector], suffix: str = "") -> Select[Any]:
    """Selects the adapter named, with the version meant or without one; `suffix` is at the end of each
    parameter's name. (`Any`: rows are typed by their columns.)
    """

    def parameter(name: str) -> BindParameter[Any]:
        return bindparam(name + suffix)

    def statement(found: FromClause, is_meant: ColumnElement[bool]) -> Select[Any]:
        return (
            select(_ADAPTERS.c.id.label("adapter_key"), _ADAPTERS.c.visibility, *SHOWN)
            .select_from(found.outerjoin(_VERSIONS, is_meant))
            .where(_ADAPTERS.c.name == parameter("name"), _ADAPTERS.c.deleted_at.is_(None))
        )

    of_adapter = _VERSIONS.c.adapter_id == _ADAPTERS.c.id
    if kind is Latest:
        latest = statement(_ADAPTERS, and_(of_adapter, _VERSIONS.c.state.in_(LATEST)))
        return latest.order_by(_VERSIONS.c.number.desc()).limit(1)
    if kind is Number:
        return statement(_ADAPTERS, and_(of_adapter, _VERSIONS.c.number == parameter("number")))
    if kind is Label:
        is_alias = and_(_ALIASES.c.adapter_id == _ADAPTERS.c.id, _ALIASES.c.alias == parameter("alias"))
        return statement(_ADAPTERS.outerjoin(_ALIASES, is_alias), _VERSIONS.c.id == _ALIASES.c.version_id)
    digest = _VERSIONS.c.digest
    begins = and_(of_adapter, digest >= parameter("prefix"), digest < parameter("beyond"))
    return statement(_ADAPTERS, begins).limit(2)


NEWEST_ACTIVE, BY_NUMBER, BY_LABEL, BY_DIGEST = map(_selection, (Latest, Number, Label, ByDigest))


@lru_cache(maxsize=64)
def _selection_of(kinds: tuple[type[Selector], ...]) -> CompoundSelect[Any]:
    """The same for several refs; the column `at` is the place of each."""
    parts = []
    for at, kind in enumerate(kinds):
        part = _selection(kind, f"_{at}").subquery(f"ref_{at}")  # SQLite allows a limit only in a subquery
        parts.append(select(literal_column(str(at), Integer).label("at"), *part.c))
    return union_all(*parts)
