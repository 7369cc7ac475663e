"""Bases in the catalog: a record by id, its names, and its files if its weights are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.identity import BaseVisibility, Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.registry import records
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.case_conflicts import fold
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_model, encode_model
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.registry.base_info import BaseInfo


@statement
def _access() -> Selection:
    return (
        sa.select(tables.bases.c.visibility, tables.base_names.c.namespace)
        .outerjoin_from(tables.bases, tables.base_names, tables.base_names.c.base_id == tables.bases.c.id)
        .where(tables.bases.c.id == sa.bindparam("id"))
    )


@statement
def _record() -> Selection:
    return sa.select(tables.bases.c.record).where(tables.bases.c.id == sa.bindparam("id"))


@statement
def _named() -> Selection:
    return sa.select(tables.base_names.c.base_id).where(tables.base_names.c.name == sa.bindparam("name"))


@dataclass(frozen=True, slots=True)
class BaseAccess:
    """The data that decide who may see a base: its visibility, and the namespaces of its names."""

    visibility: BaseVisibility
    owners: frozenset[str]

    def allows(self, identity: Identity) -> bool:
        return identity.may_read_base(self.owners, self.visibility)


def find(tx: Transaction, scope: ReadScope, key: str) -> list[Digest]:
    """The ids of readable bases that match `key`: a name, an id or its beginning. At most two."""
    found = [Digest(row.base_id) for row in run_select(tx, _named, {"name": key})]
    if found and scope.namespaces is not None:
        found = _seen(tx, scope, sm.col(orm.BaseRow.id).in_([one.hex for one in found]))
    if found:
        return found[:2]
    prefix = key.removeprefix("sha256:")
    if not _is_beginning_of_id(key):
        return []
    return _seen(tx, scope, (sm.col(orm.BaseRow.id) >= prefix) & (sm.col(orm.BaseRow.id) < prefix + "g"))


def is_unknown(tx: Reads, key: str) -> bool:
    """Whether no base is registered under that name, and `key` is not the beginning of an id."""
    return not _is_beginning_of_id(key) and not run_select(tx, _named, {"name": key})


def _is_beginning_of_id(key: str) -> bool:
    prefix = key.removeprefix("sha256:")
    return len(prefix) >= 12 and set(prefix) <= set("0123456789abcdef")


def visible_among(tx: Transaction, scope: ReadScope, ids: Collection[Digest]) -> frozenset[Digest]:
    """Those of the given ids that belong to readable bases."""
    query = sm.select(orm.BaseRow.id).where(sm.col(orm.BaseRow.id).in_([id.hex for id in ids]))
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    return frozenset(Digest(id) for id in tx.exec(query))


def access(tx: Transaction, ids: Collection[Digest]) -> dict[Digest, BaseAccess]:
    """The data that decide who may see each of these bases; unknown ids are left out."""
    query = (
        sm.select(orm.BaseRow.id, orm.BaseRow.visibility, orm.BaseNameRow.namespace)
        .outerjoin(orm.BaseNameRow, sm.col(orm.BaseNameRow.base_id) == sm.col(orm.BaseRow.id))
        .where(sm.col(orm.BaseRow.id).in_([id.hex for id in ids]))
    )
    found: dict[Digest, BaseAccess] = {}
    for id, visibility, namespace in tx.exec(query):
        known = found.get(Digest(id), BaseAccess(visibility_of(visibility), frozenset()))
        owners = known.owners | {namespace} if namespace else known.owners
        found[Digest(id)] = BaseAccess(known.visibility, owners)
    return found


def access_of(tx: Reads, id: Digest) -> BaseAccess | None:
    """The data that decide who may see a base; None if it is not registered."""
    rows = run_select(tx, _access, {"id": id.hex})
    if not rows:
        return None
    owners = frozenset(row.namespace for row in rows if row.namespace)
    return BaseAccess(visibility_of(rows[0].visibility), owners)


def visibility_of(text: str) -> BaseVisibility:
    """Parses a visibility; an unknown value means private."""
    return "public" if text == "public" else "internal" if text == "internal" else "private"


def set_visibility(tx: Transaction, id: Digest, visibility: BaseVisibility) -> None:
    tx.execute(sa.update(orm.BaseRow).where(sm.col(orm.BaseRow.id) == id.hex).values(visibility=visibility))


def _seen(tx: Transaction, scope: ReadScope, is_meant: sa.ColumnElement[bool]) -> list[Digest]:
    query = sm.select(orm.BaseRow.id).where(is_meant)
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    return [Digest(id) for id in tx.exec(query.limit(2))]


def ids(tx: Transaction) -> tuple[Digest, ...]:
    """The ids of all bases, in order."""
    return tuple(Digest(id) for id in tx.exec(sm.select(orm.BaseRow.id).order_by(orm.BaseRow.id)))


def record(tx: Reads, id: Digest) -> BaseRecord | None:
    rows = run_select(tx, _record, {"id": id.hex})
    if not rows:
        return None
    from adaptry.adapters.base_record import BaseRecord  # imports pydantic

    return decode_model(BaseRecord, rows[0].record)


def put(tx: Transaction, new: BaseRecord, at: datetime, by: str) -> None:
    """Adds a base, or replaces the record of a known one."""
    row = tx.exec(sm.select(orm.BaseRow).where(orm.BaseRow.id == new.id.hex)).first()
    if row is None:
        row = orm.BaseRow(
            id=new.id.hex,
            architecture=new.architecture.hex,
            record=b"",
            summary="",
            created_at=at,
            created_by=by,
        )
    row.record, row.summary = encode_model(new), summary(new, row.created_at, row.created_by)
    tx.add(row)
    tx.flush()


def names(tx: Transaction, id: Digest) -> tuple[str, ...]:
    return tuple(
        tx.exec(
            sm.select(orm.BaseNameRow.name)
            .where(orm.BaseNameRow.base_id == id.hex)
            .order_by(orm.BaseNameRow.name)
        )
    )


def visible_names(tx: Transaction, scope: ReadScope, ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The names of the readable bases among these ids; without those that have no name."""
    query = (
        sm.select(orm.BaseNameRow.base_id, orm.BaseNameRow.name)
        .join(orm.BaseRow, sm.col(orm.BaseRow.id) == sm.col(orm.BaseNameRow.base_id))
        .where(sm.col(orm.BaseNameRow.base_id).in_(ids))
        .order_by(orm.BaseNameRow.name)
    )
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    found: dict[str, tuple[str, ...]] = {}
    for id, name in tx.exec(query) if ids else ():
        found[id] = (*found.get(id, ()), name)
    return found


def add_names(tx: Transaction, id: Digest, new: Iterable[str]) -> None:
    """Adds names to a base. The names must be free."""
    tx.add_all(
        [
            orm.BaseNameRow(name=name, namespace=namespace_of(name), base_id=id.hex, folded=fold(name))
            for name in new
        ]
    )
    tx.flush()


def namespace_of(name: str) -> str:
    """The namespace that a base's name is in; empty for a name of one word."""
    namespace, slash, _ = name.partition("/")
    return namespace if slash else ""


def store(tx: Transaction, id: Digest, files: Sequence[FileEntry]) -> None:
    """Sets the files of the base's weights."""
    tx.execute(sa.delete(orm.BaseFileRow).where(sm.col(orm.BaseFileRow.base_id) == id.hex))
    tx.add_all(
        [
            orm.BaseFileRow(base_id=id.hex, path=file.path, digest=file.sha256.hex, size=file.size)
            for file in files
        ]
    )
    tx.flush()


def stored_file(tx: Transaction, id: Digest, path: str) -> Digest | None:
    row = tx.get(orm.BaseFileRow, (id.hex, path))
    return Digest(row.digest) if row else None


def info(tx: Transaction, scope: ReadScope, id: Digest) -> BaseInfo:
    return _infos(tx, scope, tx.exec(sm.select(orm.BaseRow).where(orm.BaseRow.id == id.hex)).all())[0]


def page(tx: Transaction, scope: ReadScope, cursor: str | None, limit: int) -> records.Page[BaseInfo]:
    """A page of bases, newest first."""
    from adaptry.registry.base_info import BaseInfo  # not needed for listing adapters

    before = cursors.decode_number(cursor, "bases")
    query = sm.select(orm.BaseRow).order_by(sm.col(orm.BaseRow.key).desc())
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    if before is not None:
        query = query.where(sm.col(orm.BaseRow.key) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    shown = rows[:limit]
    following = cursors.encode(shown[-1].key or 0, "bases") if len(rows) > limit else None
    return records.Page[BaseInfo](items=_infos(tx, scope, shown), next=following)


def of_architecture(tx: Transaction, scope: ReadScope, architecture: Digest) -> tuple[BaseInfo, ...]:
    query = (
        sm.select(orm.BaseRow)
        .where(orm.BaseRow.architecture == architecture.hex)
        .order_by(sm.col(orm.BaseRow.key).desc())
    )
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    return _infos(tx, scope, tx.exec(query).all())


def _infos(tx: Transaction, scope: ReadScope, rows: Sequence[orm.BaseRow]) -> tuple[BaseInfo, ...]:
    from adaptry.registry.base_info import BaseInfo  # not needed for listing adapters

    ids = [row.id for row in rows]
    known: dict[str, list[str]] = defaultdict(list)
    for named in tx.exec(
        sm.select(orm.BaseNameRow)
        .where(sm.col(orm.BaseNameRow.base_id).in_(ids))
        .order_by(orm.BaseNameRow.name)
    ):
        known[named.base_id].append(named.name)
    stored: dict[str, list[FileEntry]] = defaultdict(list)
    for file in tx.exec(
        sm.select(orm.BaseFileRow)
        .where(sm.col(orm.BaseFileRow.base_id).in_(ids))
        .order_by(orm.BaseFileRow.path)
    ):
        stored[file.base_id].append(FileEntry(path=file.path, size=file.size, sha256=Digest(file.digest)))
    counts = _adapters_on(tx, scope, ids)
    return tuple(
        BaseInfo.model_validate_json(row.summary).model_copy(
            update={
                "names": tuple(known[row.id]),
                "stored": tuple(stored[row.id]),
                "adapters": counts.get(row.id, 0),
                "visibility": visibility_of(row.visibility),
            }
        )
        for row in rows
    )


def _adapters_on(tx: Transaction, scope: ReadScope, ids: Sequence[str]) -> dict[str | None, int]:
    """The number of visible adapters with a version on each base."""
    query = sm.select(
        orm.VersionRow.base_id, sa.func.count(sa.distinct(sm.col(orm.VersionRow.adapter_id)))
    ).join(orm.AdapterRow, sm.col(orm.AdapterRow.id) == sm.col(orm.VersionRow.adapter_id))
    query = query.where(sm.col(orm.VersionRow.base_id).in_(ids), sm.col(orm.AdapterRow.deleted_at).is_(None))
    seen = scope.adapter_condition()
    if seen is not None:
        query = query.where(seen)
    return dict(tx.exec(query.group_by(sm.col(orm.VersionRow.base_id))).all())


def summary(record: BaseRecord, at: datetime, by: str) -> str:
    """The summary for listings, as JSON, so that they need not read records, which may be large."""
    from adaptry.registry.base_info import BaseInfo  # not needed for listing adapters

    model_type = record.facts.get("model_type")
    return BaseInfo(
        id=record.id,
        architecture=record.architecture,
        model_type=model_type if isinstance(model_type, str) else None,
        parameters=record.parameters,
        dtypes=tuple(sorted({tensor.dtype for tensor in record.tensors.values()})),
        roots=record.roots,
        tokenizer=record.tokenizer,
        created_at=at,
        created_by=by,
    ).model_dump_json()
