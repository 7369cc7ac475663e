"""Adapters in the catalog, and the tombstones of deleted ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache

from adaptry.core.errors import Conflict
from adaptry.core.identity import Visibility
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry import records
from adaptry.registry.records import AdapterEdit
from adaptry.storage.catalog import (
    adapter_statements,
    case_conflicts,
    stored_use,
    terms,
)
from adaptry.storage.catalog.adapter_rows import visibility_of
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_list, encode_list
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_new
from adaptry.storage.catalog.shown_adapters import adapter_of
from adaptry.storage.catalog.statement_texts import ADAPTER_OF_NAME, Selection
from adaptry.storage.catalog.version_info import values_of_keys


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """An adapter in the catalog: its key, name and visibility."""

    key: int
    name: AdapterName
    visibility: Visibility


def find(tx: Reads, name: AdapterName) -> AdapterRecord | None:
    """The adapter of that name, if it exists."""
    found = run_select(tx, ADAPTER_OF_NAME, {"name": str(name)})
    return AdapterRecord(found[0].id, name, visibility_of(found[0].visibility)) if found else None


def find_all(tx: Reads, names: Collection[AdapterName]) -> dict[AdapterName, AdapterRecord]:
    """The existing adapters among these names, in one statement."""
    parameters = {f"name_{at}": str(name) for at, name in enumerate(names)}
    return {
        (name := AdapterName.parse(row.name)): AdapterRecord(row.id, name, visibility_of(row.visibility))
        for row in run_select(tx, _of_names(len(parameters)), parameters)
    }


@lru_cache(maxsize=64)
def _of_names(count: int) -> Selection:
    """(`Any`: typed by its columns.)"""
    names = [sa.bindparam(f"name_{at}", type_=tables.adapters.c.name.type) for at in range(count)]
    return sa.select(tables.adapters.c.id, tables.adapters.c.name, tables.adapters.c.visibility).where(
        tables.adapters.c.name.in_(names), tables.adapters.c.deleted_at.is_(None)
    )


def has_public(tx: Transaction, namespace: str) -> bool:
    """Whether the namespace has a public adapter."""
    query = sm.select(orm.AdapterRow.id).where(
        orm.AdapterRow.namespace == namespace,
        orm.AdapterRow.visibility == "public",
        sm.col(orm.AdapterRow.deleted_at).is_(None),
    )
    return tx.exec(query.limit(1)).first() is not None


def require_distinct_name(tx: Reads, name: AdapterName, renamed: AdapterName | None = None) -> None:
    """Raises `Conflict` if a name differs from another only in case; `renamed`: the name it replaces."""
    if (namespace := case_conflicts.namespace_like(tx, name.namespace)) is not None:
        raise Conflict(
            f"the namespace {name.namespace!r} differs only in case from {namespace!r}, which exists;"
            f" write {namespace}/{name.name}, or choose another namespace"
        )
    if (other := case_conflicts.adapter_like(tx, str(name))) not in (None, str(renamed)):
        raise Conflict(
            f"{name} differs only in case from {other}, which exists; write {other}, or choose another name"
        )


def create(tx: Transaction, name: AdapterName, edit: AdapterEdit, at: datetime) -> AdapterRecord:
    """Creates an adapter, or an empty one in place of a deleted one, whose numbering continues. The name must
    be free.

    Raises `Conflict` as `require_distinct_name` does.
    """
    require_distinct_name(tx, name)
    _note_namespace(tx, name.namespace)
    visibility = edit.visibility or "private"
    values = {
        "namespace": name.namespace,
        "created_at": at,
        "updated_at": at,
        "deleted_at": None,
        "moved_to": None,
        "description": edit.description or "",
        "tags": encode_list(edit.tags or ()),
        "visibility": visibility,
        "downloads": 0,
        "folded": case_conflicts.fold(str(name)),
    }
    deleted = run_select(tx, adapter_statements.key_of_name, {"of_name": str(name)})
    if not deleted:
        return AdapterRecord(insert_new(tx, "adapters", {"name": str(name), **values}), name, visibility)
    if deleted[0].version_count:
        _finish_removal(tx, deleted[0].id)
    change(tx, adapter_statements.create_again, {"of_name": str(name), **values})
    return AdapterRecord(deleted[0].id, name, visibility)


def edit(tx: Transaction, adapter: AdapterRecord, change: AdapterEdit, at: datetime) -> AdapterRecord:
    from adaptry.storage.catalog import index_updates  # not used by pushes

    row = _require(tx, adapter)
    old = terms.of_adapter_row(row)
    if change.description is not None:
        row.description = change.description
    if change.tags is not None:
        row.tags = encode_list(change.tags)
    if change.visibility is not None:
        row.visibility = change.visibility
    row.updated_at = at
    tx.flush()
    index_updates.replace_terms(tx, adapter.key, old, terms.of_adapter_row(row))
    return _record(row)


def rename(tx: Transaction, adapter: AdapterRecord, to: AdapterName, at: datetime) -> AdapterRecord:
    """Renames an adapter to a free name; its numbering continues after the numbers used under either name.

    Raises `Conflict` as `require_distinct_name` does.
    """
    require_distinct_name(tx, to, adapter.name)
    with stored_use.recounted(tx, adapter.key, str(adapter.name), str(to)):
        return _rename(tx, adapter, to, at)


def _rename(tx: Transaction, adapter: AdapterRecord, to: AdapterName, at: datetime) -> AdapterRecord:
    from adaptry.storage.catalog import index_updates  # not used by pushes

    row = _require(tx, adapter)
    old, number, old_terms = row.name, row.next_number, terms.of_adapter_row(row)
    buried = _row(tx, to)
    if buried:
        if buried.version_count:
            _finish_removal(tx, buried.id)
            tx.refresh(buried)
        row.next_number = max(number, buried.next_number)
        tx.execute(
            sa.update(orm.EventRow)
            .where(sm.col(orm.EventRow.adapter_id) == buried.id)
            .values(adapter_id=adapter.key)
        )
        tx.execute(sa.delete(orm.AliasRow).where(sm.col(orm.AliasRow.adapter_id) == buried.id))
        _clear_former_names(tx, buried.id)
        tx.delete(buried)
        tx.flush()
    row.name, row.namespace, row.updated_at = str(to), to.namespace, at
    row.folded = None
    tx.flush()
    if case_conflicts.fold(old) != case_conflicts.fold(str(to)):
        case_conflicts.release_adapter_name(tx, old)
    row.folded = case_conflicts.fold(str(to))
    tx.flush()
    _note_namespace(tx, to.namespace)
    tx.add(
        orm.AdapterRow(
            name=old,
            namespace=adapter.name.namespace,
            created_at=row.created_at,
            updated_at=at,
            deleted_at=at,
            next_number=number,
            moved_to=adapter.key,
        )
    )
    # Uploads begun under the new name before the rename stay open: same namespace, same rights.
    held = sm.select(orm.FileRow.digest).where(orm.FileRow.owner == str(to))
    tx.execute(
        sa.delete(orm.FileRow).where(sm.col(orm.FileRow.owner) == old, sm.col(orm.FileRow.digest).in_(held))
    )
    tx.execute(sa.update(orm.FileRow).where(sm.col(orm.FileRow.owner) == old).values(owner=str(to)))
    # Under the new name, these files may be needed, whatever a sweep found before.
    is_marked = sm.col(orm.FileRow.unneeded_since).is_not(None)
    tx.execute(
        sa.update(orm.FileRow)
        .where(sm.col(orm.FileRow.owner) == str(to), is_marked)
        .values(unneeded_since=None)
    )
    tx.execute(
        sa.update(orm.UploadRow)
        .where(sm.col(orm.UploadRow.owner) == old)
        .values(owner=str(to), tenant=to.namespace)
    )
    index_updates.replace_terms(tx, adapter.key, old_terms, terms.of_adapter_row(row))
    return _record(row)


def mark_deleted(tx: Transaction, adapter: AdapterRecord, at: datetime) -> None:
    """Deletes an adapter's aliases, branches, policies and files; keeps a tombstone and the events. Its
    versions can no longer be found; if they are many, their rows are removed later (`removals`).
    """
    from adaptry.storage.catalog import removals  # not used by pushes

    row = _require(tx, adapter)
    tx.execute(
        sa.update(orm.AliasRow).where(sm.col(orm.AliasRow.adapter_id) == adapter.key).values(version_id=None)
    )
    with stored_use.recounted(tx, adapter.key, row.name):
        row.deleted_at = row.updated_at = at
        tx.execute(sa.delete(orm.FileRow).where(sm.col(orm.FileRow.owner) == row.name))
    for table in (
        orm.GitRefRow,
        orm.PolicyRow,
        orm.ApprovalRow,
        orm.PromotionRow,
        orm.RolloutRow,
        orm.IndexUpdateRow,
    ):
        tx.execute(sa.delete(table).where(sm.col(table.adapter_id) == adapter.key))
    versions = sm.select(orm.VersionRow.id).where(orm.VersionRow.adapter_id == adapter.key)
    tx.execute(sa.delete(orm.ResidentRow).where(sm.col(orm.ResidentRow.version_id).in_(versions)))
    _clear_former_names(tx, adapter.key)
    row.visibility, row.folded = "private", None
    tx.execute(
        sa.update(orm.AliasRow).where(sm.col(orm.AliasRow.adapter_id) == adapter.key).values(folded=None)
    )
    tx.flush()
    case_conflicts.release_adapter_name(tx, row.name)
    removals.begin_removal(tx, adapter.key)


def find_renamed(tx: Transaction, name: AdapterName) -> AdapterRecord | None:
    """The adapter that had this name before it was renamed, if the name is free now."""
    left = _row(tx, name)
    row = tx.get(orm.AdapterRow, left.moved_to) if left and left.moved_to is not None else None
    return _record(row) if row and row.deleted_at is None else None


def allocate_number(
    tx: Transaction, adapter: AdapterRecord, at: datetime, requested: int | None = None
) -> int:
    """Allocates the number of a new version, and counts the version. The number is `requested` if no version
    ever had it, otherwise the next one. No number is allocated twice.
    """
    (row,) = run_select(tx, adapter_statements.next_number, {"key": adapter.key})
    number: int = row.next_number
    if requested is not None and (requested > number or not _was_allocated(tx, adapter, requested)):
        number = requested
    following = max(row.next_number, number + 1)
    change(
        tx, adapter_statements.count_on, {"of_key": adapter.key, "next_number": following, "updated_at": at}
    )
    return number


def reserve_number(tx: Transaction, name: AdapterName, next_number: int, at: datetime) -> None:
    """Reserves all numbers below `next_number` under that name, whether the adapter exists or not."""
    row = _row(tx, name)
    if row is None:
        row = orm.AdapterRow(
            name=str(name), namespace=name.namespace, created_at=at, updated_at=at, deleted_at=at
        )
    row.next_number = max(row.next_number, next_number)
    tx.add(row)
    _note_namespace(tx, name.namespace)
    tx.flush()


def _was_allocated(tx: Transaction, adapter: AdapterRecord, number: int) -> bool:
    """Whether any version has or had that number. Events show this, since they stay when versions are
    deleted.
    """
    was = sa.exists().where(
        sm.col(orm.EventRow.adapter_id) == adapter.key, sm.col(orm.EventRow.number) == number
    )
    has = sa.exists().where(
        sm.col(orm.VersionRow.adapter_id) == adapter.key, sm.col(orm.VersionRow.number) == number
    )
    return bool(tx.exec(sm.select(sa.or_(was, has))).one())


def recount_versions(tx: Transaction, key: int) -> None:
    """Counts an adapter's versions again."""
    count = sm.select(sa.func.count()).select_from(orm.VersionRow).where(orm.VersionRow.adapter_id == key)
    tx.execute(
        sa.update(orm.AdapterRow)
        .where(sm.col(orm.AdapterRow.id) == key)
        .values(version_count=tx.exec(count).one())
    )


def count_downloads(tx: Transaction, adapter: AdapterRecord, count: int = 1) -> None:
    change(tx, adapter_statements.more_downloads, {"key": adapter.key, "count": count})


def info(tx: Reads, adapter: AdapterRecord) -> records.AdapterInfo:
    return adapter_of(run_select(tx, adapter_statements.shown_one, {"key": adapter.key})[0])


def infos(tx: Reads, keys: Sequence[int]) -> tuple[records.AdapterInfo, ...]:
    """The adapters with these keys, which must exist, in their order."""
    if not keys:
        return ()
    size, parameters = values_of_keys(keys)
    found = {row.id: row for row in run_select(tx, adapter_statements.shown_many(size), parameters)}
    return tuple(adapter_of(found[key]) for key in keys)


def _row(tx: Transaction, name: AdapterName) -> orm.AdapterRow | None:
    return tx.exec(sm.select(orm.AdapterRow).where(orm.AdapterRow.name == str(name))).first()


def _finish_removal(tx: Transaction, key: int | None) -> None:
    from adaptry.storage.catalog import removals  # only for names whose adapter has just been deleted

    assert key is not None
    removals.finish_removal(tx, key)


def _clear_former_names(tx: Transaction, key: int | None) -> None:
    tx.execute(sa.update(orm.AdapterRow).where(sm.col(orm.AdapterRow.moved_to) == key).values(moved_to=None))


def _require(tx: Transaction, adapter: AdapterRecord) -> orm.AdapterRow:
    return tx.exec(sm.select(orm.AdapterRow).where(orm.AdapterRow.id == adapter.key)).one()


def _record(row: orm.AdapterRow) -> AdapterRecord:
    assert row.id is not None
    return AdapterRecord(row.id, AdapterName.parse(row.name), visibility_of(row.visibility))


def is_own(tx: Transaction, name: AdapterName, unless_tagged: str) -> bool:
    """Whether an adapter of that name exists without the tag, or has been deleted or renamed."""
    row = _row(tx, name)
    return row is not None and (row.deleted_at is not None or unless_tagged not in decode_list(row.tags))


def _note_namespace(tx: Transaction, namespace: str) -> None:
    if not case_conflicts.has_namespace(tx, namespace):
        is_free = case_conflicts.namespace_like(tx, namespace) is None
        folded = case_conflicts.fold(namespace) if is_free else None
        insert_new(tx, "namespaces", {"name": namespace, "folded": folded})
