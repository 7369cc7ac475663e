"""Policies of aliases against the audit log, which has the digest of each version that was set."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import col, select

from adaptry.core.gates.policy import policy_digest
from adaptry.registry.audit_log import AuditEntry, Details
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.audit_log.entries import entry_of
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.rows import AdapterRow, AuditEntryRow, PolicyRow


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        # Entries have an adapter's name of that time, so versions are compared without the name.
        was_set = {(one.selector, *_version(one.after)) for one in _entries(tx, "policy.set")}
        was_removed = {(one.selector, _version(one.before)[0]) for one in _entries(tx, "policy.remove")}
        query = select(PolicyRow, AdapterRow.name).join(
            AdapterRow, col(AdapterRow.id) == col(PolicyRow.adapter_id), isouter=True
        )
        for row, name in tx.exec(query.order_by(col(PolicyRow.id))):
            if row.text is None:
                is_recorded = (row.alias, row.version - 1) in was_removed
            else:
                is_recorded = (row.alias, row.version, str(policy_digest(row.text))) in was_set
            if not is_recorded:
                where = f"the policy of {name or row.namespace}@{row.alias}"
                yield IntegrityProblem(
                    where, f"version {row.version} is not as it was set: no entry of the audit log agrees"
                )


def _entries(tx: Transaction, action: str) -> Iterator[AuditEntry]:
    query = select(AuditEntryRow).where(
        AuditEntryRow.action == action, col(AuditEntryRow.outcome) == "allowed"
    )
    return map(entry_of, tx.exec(query))


def _version(values: Details | None) -> tuple[int, str]:
    """The version and digest of a policy in an entry."""
    found = values or {}
    version = found.get("version")
    return (version if isinstance(version, int) else 0), str(found.get("digest"))
