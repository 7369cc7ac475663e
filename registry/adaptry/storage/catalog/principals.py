"""Principals and groups in the catalog, and the current grants of a principal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, cast, get_args

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, or_, update
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.access.conditions import Condition
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Conflict
from adaptry.registry.access import GroupInfo, PrincipalInfo, PrincipalKind
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record
from adaptry.storage.catalog.case_conflicts import fold
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import GrantRow, GroupMemberRow, GroupRow, PrincipalRow, ProviderGroupRow
from adaptry.storage.catalog.text_conditions import after as end_of_prefix
from adaptry.storage.catalog.version_info import Columns, table_of

_GRANTS, _GROUPS, _MEMBERS = table_of(GrantRow), table_of(GroupRow), table_of(GroupMemberRow)
_OWN_GROUPS = select_columns(_MEMBERS.c.group_id).where(_MEMBERS.c.principal_id == bindparam("principal"))
_GRANTED = (
    select_columns(*_GRANTS.c, _GROUPS.c.name.label("group_name"))
    .join(_GROUPS, _GROUPS.c.id == _GRANTS.c.group_id, isouter=True)
    .where(or_(_GRANTS.c.principal_id == bindparam("principal"), _GRANTS.c.group_id.in_(_OWN_GROUPS)))
    .order_by(_GRANTS.c.id)
)
"""A principal's own grants, and those of its groups."""


class PrincipalRecord(NamedTuple):
    """A principal with its number in the catalog."""

    key: int
    info: PrincipalInfo


class GroupRecord(NamedTuple):
    """A group's number in the catalog, and its name."""

    key: int
    name: str


def insert(
    tx: Transaction, kind: PrincipalKind, name: str, namespace: str | None, now: datetime, by: str
) -> PrincipalRecord:
    """A new principal, recorded in the audit log.

    Raises `Conflict` if its name is taken, or differs from another only in case.
    """
    if (taken := find_ignoring_case(tx, name)) is not None:
        raise Conflict(_taken(name, taken.info.name))
    row = PrincipalRow(kind=kind, name=name, namespace=namespace, created_at=now, created_by=by)
    tx.add(row)
    tx.flush()
    record(tx, "principal.create", AuditTarget(name, namespace), now, after={"kind": kind}, by=by)
    return _record(row)


def find(tx: Transaction, name: str) -> PrincipalRecord | None:
    row = tx.exec(select(PrincipalRow).where(PrincipalRow.name == name)).first()
    return _record(row) if row else None


def find_ignoring_case(tx: Transaction, name: str) -> PrincipalRecord | None:
    """The principal with this name, or with one that differs only in case."""
    query = select(PrincipalRow).where(func.lower(PrincipalRow.name) == fold(name))
    row = tx.exec(query.order_by(col(PrincipalRow.name) != name, col(PrincipalRow.id))).first()
    return _record(row) if row else None


def _taken(name: str, other: str) -> str:
    if name == other:
        return f"{name} already exists; names are never reused, even those of disabled users"
    return f"{name} differs only in case from {other}, which exists; choose another name"


def by_key(tx: Transaction, key: int) -> PrincipalRecord:
    """The principal, which must exist."""
    return _record(tx.get_one(PrincipalRow, key))


def page(
    tx: Transaction,
    which: Sequence[ColumnElement[bool]],
    any_of: Sequence[ColumnElement[bool]],
    after: str | None,
    limit: int,
) -> tuple[PrincipalInfo, ...]:
    """A page of at most `limit` principals after that name, in name order: those that meet all conditions of
    `which`, and one of `any_of` if there are any. Each of the latter is a query, which scans its own index.
    """
    query = select(PrincipalRow).where(*which).order_by(PrincipalRow.name).limit(limit)
    if after is not None:
        query = query.where(col(PrincipalRow.name) > after)
    queries = [query.where(each) for each in any_of] or [query]
    found = {row.name: _record(row).info for each in queries for row in tx.exec(each)}
    return tuple(found[name] for name in sorted(found)[:limit])


def of_kinds(kinds: Collection[PrincipalKind]) -> list[ColumnElement[bool]]:
    """The conditions of principals of each kind."""
    return [col(PrincipalRow.kind) == kind for kind in sorted(set(kinds))]


def visible_to(
    name: str, namespaces: Collection[str], kinds: Collection[PrincipalKind]
) -> list[ColumnElement[bool]]:
    """The conditions of one principal, and of the service accounts of some namespaces, as far as they are of
    these kinds; of no kinds, of all.
    """
    of_kind = col(PrincipalRow.kind).in_(sorted(set(kinds) or get_args(PrincipalKind)))
    own = and_(col(PrincipalRow.name) == name, of_kind)
    accounts = col(PrincipalRow.namespace).in_(namespaces)
    return [own, accounts] if not kinds or "service-account" in kinds else [own]


def of_namespace(namespace: str) -> ColumnElement[bool]:
    """The condition of the service accounts of a namespace."""
    return col(PrincipalRow.namespace) == namespace


def begins_with(prefix: str) -> ColumnElement[bool]:
    """The condition of principals whose name begins with a text: a range of the index of names."""
    return and_(col(PrincipalRow.name) >= prefix, col(PrincipalRow.name) < end_of_prefix(prefix))


def namespaces(tx: Transaction) -> tuple[str, ...]:
    """The namespaces that have service accounts."""
    there = select(PrincipalRow.namespace).where(col(PrincipalRow.namespace).is_not(None)).distinct()
    return tuple(name for name in tx.exec(there) if name is not None)


def set_disabled(tx: Transaction, principal: PrincipalRecord, at: datetime | None) -> PrincipalRecord:
    """Disables a principal as of `at`, or enables it again with None."""
    tx.execute(update(PrincipalRow).where(col(PrincipalRow.id) == principal.key).values(disabled_at=at))
    return PrincipalRecord(principal.key, principal.info.model_copy(update={"disabled_at": at}))


def current_grants(tx: Transaction, principal: int) -> tuple[Grant, ...]:
    """A principal's own grants and those of its groups; none if it is disabled."""
    is_disabled = tx.get_one(PrincipalRow, principal).disabled_at is not None
    return () if is_disabled else enabled_grants(tx, principal)


def enabled_grants(tx: Reads, principal: int) -> tuple[Grant, ...]:
    """Like `current_grants`, for a principal that is known not to be disabled."""
    return tuple(to_grant(row, row.group_name) for row in run_select(tx, _GRANTED, {"principal": principal}))


def to_grant(row: GrantRow | Columns, group: str | None) -> Grant:
    """The grant that a row stores; `group` is the name of the group that has it."""
    conditions = tuple(map(Condition.parse, decode_list(row.conditions)))
    return Grant(row.permission, Resource(row.namespace, row.names), conditions, row.id, group)


def find_group(tx: Transaction, name: str) -> GroupRecord | None:
    row = tx.exec(select(GroupRow).where(GroupRow.name == name)).first()
    return GroupRecord(row.id or 0, row.name) if row else None


def insert_group(tx: Transaction, name: str, now: datetime, by: str) -> GroupRecord:
    """A new group. Raises `Conflict` if its name is taken, or differs from another only in case."""
    query = select(GroupRow.name).where(func.lower(GroupRow.name) == fold(name))
    taken = tx.exec(query.order_by(col(GroupRow.name) != name)).first()
    if taken == name:
        raise Conflict(f"the group {name} already exists")
    if taken is not None:
        raise Conflict(f"the group {name} differs only in case from {taken}; choose another name")
    row = GroupRow(name=name, created_at=now, created_by=by)
    tx.add(row)
    tx.flush()
    return GroupRecord(row.id or 0, row.name)


def delete_group(tx: Transaction, group: GroupRecord) -> None:
    """Deletes a group with its memberships and grants."""
    tx.execute(delete(GroupMemberRow).where(col(GroupMemberRow.group_id) == group.key))
    tx.execute(delete(ProviderGroupRow).where(col(ProviderGroupRow.group_id) == group.key))
    tx.execute(delete(GrantRow).where(col(GrantRow.group_id) == group.key))
    tx.execute(delete(GroupRow).where(col(GroupRow.id) == group.key))


def set_membership(tx: Transaction, group: GroupRecord, principal: PrincipalRecord, is_member: bool) -> bool:
    """Adds or removes a member; returns whether that changed anything."""
    row = tx.get(GroupMemberRow, (group.key, principal.key))
    if (row is not None) == is_member:
        return False
    if row is not None:
        tx.delete(row)
    else:
        tx.add(GroupMemberRow(group_id=group.key, principal_id=principal.key))
    tx.flush()
    return True


def groups(
    tx: Transaction, of: PrincipalRecord | None, after: str | None, limit: int, member_limit: int
) -> tuple[GroupInfo, ...]:
    """A page of at most `limit` groups after the name `after`, in name order, each with its first members:
    all groups, or those of a principal.
    """
    query = select(GroupRow).order_by(GroupRow.name).limit(limit)
    if of is not None:
        own = select(GroupMemberRow.group_id).where(GroupMemberRow.principal_id == of.key)
        query = query.where(col(GroupRow.id).in_(own))
    if after is not None:
        query = query.where(col(GroupRow.name) > after)
    rows = tx.exec(query).all()
    sizes = _sizes(tx, [row.id or 0 for row in rows])
    return tuple(_group(tx, row, sizes.get(row.id or 0, 0), member_limit) for row in rows)


def group_info(tx: Transaction, group: GroupRecord, member_limit: int | None) -> GroupInfo:
    """A group with its first members; None: with all."""
    return _group(
        tx, tx.get_one(GroupRow, group.key), _sizes(tx, [group.key]).get(group.key, 0), member_limit
    )


def is_in(tx: Transaction, group: GroupRecord, name: str) -> bool:
    """Whether a principal of this name is in the group."""
    found = find(tx, name)
    return found is not None and tx.get(GroupMemberRow, (group.key, found.key)) is not None


def in_group(group: GroupRecord) -> ColumnElement[bool]:
    """The condition of the principals in a group."""
    members = select(GroupMemberRow.principal_id).where(GroupMemberRow.group_id == group.key)
    return col(PrincipalRow.id).in_(members)


def _group(tx: Transaction, row: GroupRow, size: int, member_limit: int | None) -> GroupInfo:
    query = (
        select(PrincipalRow.name)
        .join(GroupMemberRow, col(GroupMemberRow.principal_id) == col(PrincipalRow.id))
        .where(GroupMemberRow.group_id == row.id)
        .order_by(PrincipalRow.name)
    )
    names = tuple(tx.exec(query.limit(member_limit))) if size else ()
    return GroupInfo(
        name=row.name, size=size, members=names, created_at=row.created_at, created_by=row.created_by
    )


def _sizes(tx: Transaction, keys: Sequence[int]) -> dict[int, int]:
    """The number of members of each group; groups without members are left out."""
    query = (
        select(GroupMemberRow.group_id, func.count())
        .where(col(GroupMemberRow.group_id).in_(keys))
        .group_by(col(GroupMemberRow.group_id))
    )
    return dict(tx.exec(query).all())


def _record(row: PrincipalRow) -> PrincipalRecord:
    return PrincipalRecord(
        row.id or 0,
        PrincipalInfo(
            name=row.name,
            kind=cast(PrincipalKind, row.kind),
            namespace=row.namespace,
            created_at=row.created_at,
            created_by=row.created_by,
            disabled_at=row.disabled_at,
        ),
    )
