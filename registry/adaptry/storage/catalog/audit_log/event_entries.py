"""The audit entries of changes that also have an event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from adaptry.core.refs import AdapterName
from adaptry.registry.audit_actions import OF_EVENTS
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record

if TYPE_CHECKING:
    from sqlmodel import Session

_CHANGED = {
    "adapter": "name",
    "alias": "digest",
    "base": "visibility",
    "recall": "state",
    "rollout": "digest",
    "version": "state",
}
"""The field that an event of each scope has as `was`, and as `to`."""
_NAMES = ("adapter", "worker", "user", "id", "epoch")
"""The details that name the subject of an event without an adapter."""


def record_event(
    tx: Session,
    kind: str,
    at: datetime,
    by: str,
    name: AdapterName | None,
    number: int | None,
    detail: Mapping[str, object],
    before: Mapping[str, object] | None,
) -> None:
    """Records the action behind an event. The event's details are the new values, except `was` and
    `was_…`.
    """
    changed = _CHANGED.get(kind.partition(".")[0], "was")
    was: dict[str, object] = {**(before or {})}
    now: dict[str, object] = {}
    for key, value in detail.items():
        if key == "was" or key.startswith("was_"):
            was[changed if key == "was" else key.removeprefix("was_")] = value
        else:
            now[changed if key == "to" else key] = value
    record(tx, OF_EVENTS[kind], _target(kind, name, number, detail), at, before=was, after=now, by=by)


def _target(
    kind: str, name: AdapterName | None, number: int | None, detail: Mapping[str, object]
) -> AuditTarget:
    if name is None:
        about = next((detail[key] for key in _NAMES if detail.get(key) is not None), kind)
        return AuditTarget(str(about))
    alias = detail.get("alias") or detail.get("branch") or detail.get("tag")
    selector = alias if alias is not None else number
    return AuditTarget(str(name), name.namespace, str(selector) if selector is not None else None)
