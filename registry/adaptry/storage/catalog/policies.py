"""Policies in the catalog: rows that are only appended, the highest version of each in force."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, bindparam, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.gates.policy import PolicyScope, policy_digest
from adaptry.core.identity import Visibility
from adaptry.registry.policies import PolicyInfo
from adaptry.storage.catalog.adapter_rows import visibility_of
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.case_conflicts import fold
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow, PolicyRow
from adaptry.storage.catalog.version_info import Columns, table_of

_POLICIES = table_of(PolicyRow)
_FOR_ALIAS = (
    select_columns(_POLICIES)
    .where(
        func.lower(_POLICIES.c.alias) == bindparam("folded"),
        or_(
            _POLICIES.c.namespace == bindparam("namespace"),
            _POLICIES.c.adapter_id == bindparam("adapter"),
        ),
    )
    .order_by(_POLICIES.c.version)
)


class PolicyOwner(NamedTuple):
    """The namespace or adapter that a policy is for; `adapter` is None for a namespace."""

    scope: PolicyScope
    adapter: AdapterRecord | None

    @property
    def namespace(self) -> str | None:
        return self.scope.namespace if self.adapter is None else None

    @property
    def key(self) -> int | None:
        return self.adapter.key if self.adapter else None


class SeenPolicy(NamedTuple):
    """A policy, and the data that decide who may see it."""

    info: PolicyInfo
    scope: PolicyScope
    visibility: Visibility


def in_force(tx: Reads, adapter: AdapterRecord, alias: str) -> tuple[PolicyInfo, ...]:
    """The policies of an alias, ignoring case: those of the namespace, then those of the adapter."""
    name = adapter.name
    asked = {"folded": fold(alias), "namespace": name.namespace, "adapter": adapter.key}
    latest: dict[tuple[bool, str], Columns] = {
        (row.adapter_id is not None, row.alias): row for row in run_select(tx, _FOR_ALIAS, asked)
    }
    return tuple(
        _info(row, str(name) if of_adapter else name.namespace)
        for (of_adapter, _), row in sorted(latest.items(), key=lambda item: item[0])
        if row.text is not None
    )


def has_adapter_policy(tx: Transaction, adapter: AdapterRecord) -> bool:
    """Whether an adapter has its own policy in force, in addition to its namespace's."""
    return any(one.scope.adapter == adapter.name for one in every_in_force(tx))


def has_namespace_policy(tx: Transaction, namespace: str) -> bool:
    """Whether a policy of the whole namespace is in force."""
    return any(one.scope.adapter is None and one.scope.namespace == namespace for one in every_in_force(tx))


def versions(tx: Transaction, owner: PolicyOwner, alias: str) -> tuple[PolicyInfo, ...]:
    """All versions of one policy, newest first."""
    query = select(PolicyRow).where(_at(owner), col(PolicyRow.alias) == alias)
    rows = tx.exec(query.order_by(col(PolicyRow.version).desc()))
    return tuple(_info(row, str(owner.scope)) for row in rows)


def append(
    tx: Transaction, owner: PolicyOwner, alias: str, text: str | None, at: datetime, by: str
) -> PolicyInfo:
    """Adds the next version of a policy; without a text, it removes the policy."""
    was = versions(tx, owner, alias)
    row = PolicyRow(
        namespace=owner.namespace,
        adapter_id=owner.key,
        alias=alias,
        version=was[0].version + 1 if was else 1,
        text=text,
        set_at=at,
        set_by=by,
    )
    tx.add(row)
    tx.flush()
    return _info(row, str(owner.scope))


def every_in_force(tx: Transaction) -> tuple[SeenPolicy, ...]:
    """All policies, by scope and alias. Their number is limited by what users have set."""
    query = (
        select(PolicyRow, AdapterRow)
        .join(AdapterRow, col(AdapterRow.id) == col(PolicyRow.adapter_id), isouter=True)
        .where(or_(col(PolicyRow.adapter_id).is_(None), col(AdapterRow.deleted_at).is_(None)))
        .order_by(col(PolicyRow.version))
    )
    latest: dict[tuple[str, str], tuple[PolicyRow, AdapterRow | None]] = {}
    for row, adapter in tx.exec(query):
        latest[adapter.name if adapter else row.namespace or "", row.alias] = row, adapter
    return tuple(
        SeenPolicy(
            _info(row, scope),
            PolicyScope.parse(scope),
            visibility_of(adapter.visibility) if adapter else "private",
        )
        for (scope, _), (row, adapter) in sorted(latest.items(), key=lambda item: item[0])
        if row.text is not None
    )


def _at(owner: PolicyOwner) -> ColumnElement[bool]:
    if owner.adapter is None:
        return col(PolicyRow.namespace) == owner.scope.namespace
    return col(PolicyRow.adapter_id) == owner.adapter.key


def _info(row: PolicyRow | Columns, scope: str) -> PolicyInfo:
    return PolicyInfo(
        scope=scope,
        alias=row.alias,
        version=row.version,
        digest=policy_digest(row.text or ""),
        text=row.text,
        set_at=row.set_at,
        set_by=row.set_by,
    )
