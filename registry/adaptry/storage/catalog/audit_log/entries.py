"""Converts between audit entries and their rows."""

from __future__ import annotations

import hashlib
import json

from adaptry.registry.audit_log import AuditEntry
from adaptry.storage.catalog.rows import AuditEntryRow
from adaptry.storage.catalog.version_info import Columns


def entry_of(row: AuditEntryRow | Columns) -> AuditEntry:
    """The entry of a row. An unreadable row is an entry too, so that it stops
    neither the sequencer nor a listing, and is found to be changed.
    """
    columns: dict[str, object] = {
        "id": row.id,
        "seq": row.seq,
        "at": row.at,
        "action": row.action,
        "actor": row.actor,
        "namespace": row.namespace,
        "resource": row.resource,
        "selector": row.selector,
        "outcome": row.outcome,
        "leaf": row.leaf,
    }
    try:
        return AuditEntry.model_validate({**json.loads(row.detail), **columns})
    except (ValueError, TypeError):
        text = f"{row.outcome}\n{row.detail}".encode("utf-8", "replace")
        digest = hashlib.sha256(text).hexdigest()
        columns |= {"outcome": "denied", "reason": "this row cannot be read", "after": {"sha256": digest}}
        return AuditEntry.model_validate(columns)
