"""Bases in the catalog: a record by id, its names, and its files if its weights are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, bindparam, delete, distinct, func, update
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.identity import BaseVisibility, Identity
from adaptry.core.manifest import FileEntry
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.case_conflicts import fold
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_model, encode_model
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow, BaseFileRow, BaseNameRow, BaseRow, VersionRow
from adaptry.storage.catalog.version_info import table_of

if TYPE_CHECKING:
    from adaptry.registry.base_info import BaseInfo

_BASES, _NAMES = table_of(BaseRow), table_of(BaseNameRow)
_ACCESS = (
    select_columns(_BASES.c.visibility, _NAMES.c.namespace)
    .outerjoin_from(_BASES, _NAMES, _NAMES.c.base_id == _BASES.c.id)
    .where(_BASES.c.id == bindparam("id"))
)
_RECORD = select_columns(_BASES.c.record).where(_BASES.c.id == bindparam("id"))
_NAMED = select_columns(_NAMES.c.base_id).where(_NAMES.c.name == bindparam("name"))


@dataclass(frozen=True, slots=True)
class BaseAccess:
    """The data that decide who may see a base: its visibility, and the namespaces of its names."""

    visibility: BaseVisibility
    owners: frozenset[str]

    def allows(self, identity: Identity) -> bool:
        return identity.may_read_base(self.owners, self.visibility)


def find(tx: Transaction, scope: ReadScope, key: str) -> list[Digest]:
    """The ids of readable bases that match `key`: a name, an id or its beginning. At most two."""
    found = [Digest(row.base_id) for row in run_select(tx, _NAMED, {"name": key})]
    if found and scope.namespaces is not None:
        found = _seen(tx, scope, col(BaseRow.id).in_([one.hex for one in found]))
    if found:
        return found[:2]
    prefix = key.removeprefix("sha256:")
    if not _is_beginning_of_id(key):
        return []
    return _seen(tx, scope, (col(BaseRow.id) >= prefix) & (col(BaseRow.id) < prefix + "g"))


def is_unknown(tx: Reads, key: str) -> bool:
    """Whether no base is registered under that name, and `key` is not the beginning of an id."""
    return not _is_beginning_of_id(key) and not run_select(tx, _NAMED, {"name": key})


def _is_beginning_of_id(key: str) -> bool:
    prefix = key.removeprefix("sha256:")
    return len(prefix) >= 12 and set(prefix) <= set("0123456789abcdef")


def visible_among(tx: Transaction, scope: ReadScope, ids: Collection[Digest]) -> frozenset[Digest]:
    """The ids among these of readable bases."""
    query = select(BaseRow.id).where(col(BaseRow.id).in_([id.hex for id in ids]))
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    return frozenset(Digest(id) for id in tx.exec(query))


def access(tx: Transaction, ids: Collection[Digest]) -> dict[Digest, BaseAccess]:
    """The data that decide who may see each of these bases; unknown ids are left out."""
    query = (
        select(BaseRow.id, BaseRow.visibility, BaseNameRow.namespace)
        .outerjoin(BaseNameRow, col(BaseNameRow.base_id) == col(BaseRow.id))
        .where(col(BaseRow.id).in_([id.hex for id in ids]))
    )
    found: dict[Digest, BaseAccess] = {}
    for id, visibility, namespace in tx.exec(query):
        known = found.get(Digest(id), BaseAccess(visibility_of(visibility), frozenset()))
        owners = known.owners | {namespace} if namespace else known.owners
        found[Digest(id)] = BaseAccess(known.visibility, owners)
    return found


def access_of(tx: Reads, id: Digest) -> BaseAccess | None:
    """The data that decide who may see a base; None if it is not registered."""
    rows = run_select(tx, _ACCESS, {"id": id.hex})
    if not rows:
        return None
    owners = frozenset(row.namespace for row in rows if row.namespace)
    return BaseAccess(visibility_of(rows[0].visibility), owners)


def visibility_of(text: str) -> BaseVisibility:
    """An unknown value means private."""
    return "public" if text == "public" else "internal" if text == "internal" else "private"


def set_visibility(tx: Transaction, id: Digest, visibility: BaseVisibility) -> None:
    tx.execute(update(BaseRow).where(col(BaseRow.id) == id.hex).values(visibility=visibility))


def _seen(tx: Transaction, scope: ReadScope, is_meant: ColumnElement[bool]) -> list[Digest]:
    query = select(BaseRow.id).where(is_meant)
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    return [Digest(id) for id in tx.exec(query.limit(2))]


def ids(tx: Transaction) -> tuple[Digest, ...]:
    """The ids of all bases, in order."""
    return tuple(Digest(id) for id in tx.exec(select(BaseRow.id).order_by(BaseRow.id)))


def record(tx: Reads, id: Digest) -> BaseRecord | None:
    rows = run_select(tx, _RECORD, {"id": id.hex})
    return decode_model(BaseRecord, rows[0].record) if rows else None


def put(tx: Transaction, new: BaseRecord, at: datetime, by: str) -> None:
    """Adds a base, or replaces the record of a known one."""
    row = tx.exec(select(BaseRow).where(BaseRow.id == new.id.hex)).first()
    if row is None:
        row = BaseRow(
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
        tx.exec(select(BaseNameRow.name).where(BaseNameRow.base_id == id.hex).order_by(BaseNameRow.name))
    )


def add_names(tx: Transaction, id: Digest, new: Iterable[str]) -> None:
    """The names must be free."""
    tx.add_all(
        [
            BaseNameRow(name=name, namespace=namespace_of(name), base_id=id.hex, folded=fold(name))
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
    tx.execute(delete(BaseFileRow).where(col(BaseFileRow.base_id) == id.hex))
    tx.add_all(
        [
            BaseFileRow(base_id=id.hex, path=file.path, digest=file.sha256.hex, size=file.size)
            for file in files
        ]
    )
    tx.flush()


def stored_file(tx: Transaction, id: Digest, path: str) -> Digest | None:
    row = tx.get(BaseFileRow, (id.hex, path))
    return Digest(row.digest) if row else None


def info(tx: Transaction, scope: ReadScope, id: Digest) -> BaseInfo:
    return _infos(tx, scope, tx.exec(select(BaseRow).where(BaseRow.id == id.hex)).all())[0]


def page(tx: Transaction, scope: ReadScope, cursor: str | None, limit: int) -> Page[BaseInfo]:
    """Newest first."""
    from adaptry.registry.base_info import BaseInfo  # not needed for listing adapters

    before = cursors.decode_number(cursor, "bases")
    query = select(BaseRow).order_by(col(BaseRow.key).desc())
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    if before is not None:
        query = query.where(col(BaseRow.key) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    shown = rows[:limit]
    following = cursors.encode(shown[-1].key or 0, "bases") if len(rows) > limit else None
    return Page[BaseInfo](items=_infos(tx, scope, shown), next=following)


def of_architecture(tx: Transaction, scope: ReadScope, architecture: Digest) -> tuple[BaseInfo, ...]:
    query = select(BaseRow).where(BaseRow.architecture == architecture.hex).order_by(col(BaseRow.key).desc())
    if (seen := scope.base_condition()) is not None:
        query = query.where(seen)
    return _infos(tx, scope, tx.exec(query).all())


def _infos(tx: Transaction, scope: ReadScope, rows: Sequence[BaseRow]) -> tuple[BaseInfo, ...]:
    from adaptry.registry.base_info import BaseInfo  # not needed for listing adapters

    ids = [row.id for row in rows]
    known: dict[str, list[str]] = defaultdict(list)
    for named in tx.exec(
        select(BaseNameRow).where(col(BaseNameRow.base_id).in_(ids)).order_by(BaseNameRow.name)
    ):
        known[named.base_id].append(named.name)
    stored: dict[str, list[FileEntry]] = defaultdict(list)
    for file in tx.exec(
        select(BaseFileRow).where(col(BaseFileRow.base_id).in_(ids)).order_by(BaseFileRow.path)
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
    """How many visible adapters have a version on each base."""
    query = select(VersionRow.base_id, func.count(distinct(col(VersionRow.adapter_id)))).where(
        col(VersionRow.base_id).in_(ids)
    )
    seen = scope.adapter_condition()
    if seen is not None:
        query = query.join(AdapterRow, col(AdapterRow.id) == col(VersionRow.adapter_id)).where(seen)
    return dict(tx.exec(query.group_by(col(VersionRow.base_id))).all())


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
