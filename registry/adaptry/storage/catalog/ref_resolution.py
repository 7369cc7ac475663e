"""Resolves refs: one statement from names and their selectors to the versions' columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from adaptry.core.errors import Conflict
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import LATEST
from adaptry.core.refs import ByDigest, Label, Latest, Number, Ref, Selector
from adaptry.storage.catalog.adapter_rows import visibility_of
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.lazy_modules import sa, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.ref_query import ref_query
from adaptry.storage.catalog.statement_texts import CombinedSelection, Selection, statement
from adaptry.storage.catalog.version_info import Columns, shown_columns
from adaptry.storage.catalog.versions import VersionRecord, to_record


@dataclass(frozen=True, slots=True)
class ResolvedRef:
    """The adapter that a ref names, and the columns of the versions that match: none, one, or the first
    two.
    """

    adapter: AdapterRecord
    versions: tuple[Columns, ...]

    def version(self, selector: Selector) -> Columns | None:
        """The version that the selector means. Raises `Conflict` for a digest prefix that several versions
        share.
        """
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


def _selection(kind: type[Selector], suffix: str = "") -> Selection:
    """Selects the adapter named, with the version meant or without one; `suffix` is at the end of each
    parameter's name. (`Any`: rows are typed by their columns.)
    """

    def parameter(name: str) -> sa.BindParameter[Any]:
        return sa.bindparam(name + suffix)

    def selection(found: sa.FromClause, is_meant: sa.ColumnElement[bool]) -> Selection:
        return (
            sa.select(
                tables.adapters.c.id.label("adapter_key"), tables.adapters.c.visibility, *shown_columns()
            )
            .select_from(found.outerjoin(tables.versions, is_meant))
            .where(tables.adapters.c.name == parameter("name"), tables.adapters.c.deleted_at.is_(None))
        )

    of_adapter = tables.versions.c.adapter_id == tables.adapters.c.id
    if kind is Latest:
        latest = selection(tables.adapters, sa.and_(of_adapter, tables.versions.c.state.in_(LATEST)))
        return latest.order_by(tables.versions.c.number.desc()).limit(1)
    if kind is Number:
        return selection(
            tables.adapters, sa.and_(of_adapter, tables.versions.c.number == parameter("number"))
        )
    if kind is Label:
        is_alias = sa.and_(
            tables.aliases.c.adapter_id == tables.adapters.c.id, tables.aliases.c.alias == parameter("alias")
        )
        return selection(
            tables.adapters.outerjoin(tables.aliases, is_alias),
            tables.versions.c.id == tables.aliases.c.version_id,
        )
    digest = tables.versions.c.digest
    begins = sa.and_(of_adapter, digest >= parameter("prefix"), digest < parameter("beyond"))
    return selection(tables.adapters, begins).limit(2)


@statement
def newest_active() -> Selection:
    return _selection(Latest)


@statement
def by_number() -> Selection:
    return _selection(Number)


@statement
def by_label() -> Selection:
    return _selection(Label)


@statement
def by_digest() -> Selection:
    return _selection(ByDigest)


@lru_cache(maxsize=64)
def _selection_of(kinds: tuple[type[Selector], ...]) -> CombinedSelection:
    """Like `_selection`, for several refs; the column `at` is the place of each."""
    parts = []
    for at, kind in enumerate(kinds):
        part = _selection(kind, f"_{at}").subquery(f"ref_{at}")  # SQLite allows a limit only in a subquery
        parts.append(sa.select(sa.literal_column(str(at), sa.Integer).label("at"), *part.c))
    return sa.union_all(*parts)
