"""Grants in the catalog: rows, each to a principal or a group."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, not_
from sqlmodel import col, select

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import ALL_NAMES, Resource
from adaptry.core.access.roles import ROLES
from adaptry.registry.access import GrantInfo
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import decode_list, encode_list
from adaptry.storage.catalog.principals import GroupRecord, PrincipalRecord, to_grant
from adaptry.storage.catalog.rows import AccountableRow, GrantRow, GroupMemberRow, GroupRow, PrincipalRow

Holder = PrincipalRecord | GroupRecord


class GrantRecord(NamedTuple):
    """A grant and its holder."""

    grant: Grant
    info: GrantInfo


def add(tx: Transaction, holder: Holder, grant: Grant, now: datetime, by: str) -> GrantRecord:
    """Adds the grant, or returns the existing one that is the same."""
    found = tx.exec(select(GrantRow.id).where(*_same(holder, grant))).first()
    if found is None:
        row = GrantRow(
            principal_id=holder.key if isinstance(holder, PrincipalRecord) else None,
            group_id=holder.key if isinstance(holder, GroupRecord) else None,
            namespace=grant.resource.namespaces,
            names=grant.resource.names,
            permission=grant.permission,
            conditions=_conditions(grant),
            created_at=now,
            created_by=by,
        )
        tx.add(row)
        tx.flush()
        found = row.id
    return _records(tx, col(GrantRow.id) == found)[0]


def by_id(tx: Transaction, id: int) -> GrantRecord | None:
    return next(iter(_records(tx, col(GrantRow.id) == id)), None)


def of_principal(tx: Transaction, principal: PrincipalRecord) -> tuple[GrantRecord, ...]:
    """All grants of a principal, oldest first."""
    return tuple(_records(tx, col(GrantRow.principal_id) == principal.key))


def page(
    tx: Transaction,
    namespace: str | None,
    principal: PrincipalRecord | None,
    after: int | None,
    limit: int,
    *,
    with_members: bool = True,
) -> tuple[GrantRecord, ...]:
    """A page of at most `limit` grants after the one with that number, oldest first: those that name one
    namespace, those of one principal, or all.
    """
    which: list[ColumnElement[bool]] = []
    if after is not None:
        which.append(col(GrantRow.id) > after)
    if not with_members:
        which.append(not_(and_(col(GrantRow.names) == ALL_NAMES, col(GrantRow.permission).in_(ROLES))))
    if namespace is not None:
        which.append(col(GrantRow.namespace) == namespace)
    if principal is not None:
        which.append(col(GrantRow.principal_id) == principal.key)
    return tuple(_records(tx, *which, limit=limit))


def members(
    tx: Transaction,
    namespace: str,
    holder: Holder | None = None,
    after: int | None = None,
    limit: int | None = None,
) -> tuple[GrantRecord, ...]:
    """The roles that principals and groups have in a whole namespace, oldest first."""
    which = [
        col(GrantRow.namespace) == namespace,
        col(GrantRow.names) == ALL_NAMES,
        col(GrantRow.permission).in_(ROLES),
    ]
    which += [_held_by(holder)] if holder else []
    which += [col(GrantRow.id) > after] if after is not None else []
    return tuple(_records(tx, *which, limit=limit))


def remove(tx: Transaction, ids: Sequence[int]) -> None:
    tx.execute(delete(GrantRow).where(col(GrantRow.id).in_(ids)))


def has_administrator(tx: Transaction) -> bool:
    """Whether an enabled principal may administer everything."""
    is_administration = (
        (col(GrantRow.namespace) == "*")
        & (col(GrantRow.names) == ALL_NAMES)
        & (col(GrantRow.permission) == "admin")
    )
    return _has_enabled_holder(tx, is_administration)


def has_owner(tx: Transaction, namespace: str) -> bool:
    """Whether an enabled user is an owner of the namespace. Service accounts do not count, since their tokens
    are created by owners.
    """
    is_owner = (col(GrantRow.permission) == "owner") & (col(GrantRow.names) == ALL_NAMES)
    is_user = col(PrincipalRow.kind).concat("") == "user"  # an expression: SQLite would list users by index
    if _has_enabled_holder(tx, is_owner & (col(GrantRow.namespace) == namespace), is_user):
        return True
    resources = tx.exec(select(GrantRow.namespace).where(is_owner).distinct())
    covering = [one for one in resources if Resource(one).covers(namespace, None)]
    return _has_enabled_holder(tx, is_owner & col(GrantRow.namespace).in_(covering), is_user)


def _has_enabled_holder(
    tx: Transaction, grants: ColumnElement[bool], *principals: ColumnElement[bool]
) -> bool:
    """Whether one of these principals is enabled and has one of the grants, itself or through a group."""
    direct = select(GrantRow.principal_id).where(grants)
    groups = select(GrantRow.group_id).where(grants)
    through = select(GroupMemberRow.principal_id).where(col(GroupMemberRow.group_id).in_(groups))
    able = select(PrincipalRow.id).where(col(PrincipalRow.disabled_at).is_(None), *principals).limit(1)
    return any(  # two queries: one with OR would read every principal
        tx.exec(able.where(col(PrincipalRow.id).in_(holders))).first() is not None
        for holders in (direct, through)
    )


def accountable(tx: Transaction, namespace: str) -> str | None:
    """The name of the user who is accountable for a namespace."""
    query = (
        select(PrincipalRow.name)
        .join(AccountableRow, col(AccountableRow.principal_id) == col(PrincipalRow.id))
        .where(AccountableRow.namespace == namespace)
    )
    return tx.exec(query).first()


def set_accountable(
    tx: Transaction, namespace: str, principal: PrincipalRecord | None, now: datetime, by: str
) -> None:
    tx.execute(delete(AccountableRow).where(col(AccountableRow.namespace) == namespace))
    if principal is not None:
        tx.add(AccountableRow(namespace=namespace, principal_id=principal.key, set_at=now, set_by=by))
    tx.flush()


def _conditions(grant: Grant) -> str:
    return encode_list(sorted(map(str, grant.conditions)))


def _held_by(holder: Holder) -> ColumnElement[bool]:
    column = GrantRow.principal_id if isinstance(holder, PrincipalRecord) else GrantRow.group_id
    return col(column) == holder.key


def _same(holder: Holder, grant: Grant) -> list[ColumnElement[bool]]:
    return [
        _held_by(holder),
        col(GrantRow.namespace) == grant.resource.namespaces,
        col(GrantRow.names) == grant.resource.names,
        col(GrantRow.permission) == grant.permission,
        col(GrantRow.conditions) == _conditions(grant),
    ]


def _records(tx: Transaction, *which: ColumnElement[bool], limit: int | None = None) -> list[GrantRecord]:
    query = (
        select(GrantRow, PrincipalRow.name, GroupRow.name)
        .join(PrincipalRow, col(PrincipalRow.id) == col(GrantRow.principal_id), isouter=True)
        .join(GroupRow, col(GroupRow.id) == col(GrantRow.group_id), isouter=True)
        .where(*which)
        .order_by(col(GrantRow.id))
        .limit(limit)
    )
    return [_record(row, principal, group) for row, principal, group in tx.exec(query)]


def _record(row: GrantRow, principal: str | None, group: str | None) -> GrantRecord:
    grant = to_grant(row, group)
    return GrantRecord(
        grant,
        GrantInfo(
            id=row.id or 0,
            principal=principal,
            group=group,
            permission=row.permission,
            resource=str(grant.resource),
            conditions=decode_list(row.conditions),
            created_at=row.created_at,
            created_by=row.created_by,
        ),
    )
