"""Records entries in the transaction of the change, without a lock: each process inserts its own rows.

`RegistryContext.write` states the actor of a transaction; a transaction without one is by a user who opened
the catalog itself. The entries of a transaction are inserted together, at its end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from adaptry.core.access.resources import Resource
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.request_id import REQUEST_ID
from adaptry.registry.audit_actions import ACTIONS
from adaptry.storage.catalog.prepared_changes import insert_values

if TYPE_CHECKING:
    from sqlmodel import Session

_ACTOR, _PENDING = "adaptry_actor", "adaptry_audit"  # in the `info` of a session
_MAX_VALUES, _MAX_LENGTH = 32, 300  # values of one entry, and characters of each
_SECRET = lazy_pattern(r"adr_[a-z]{2,8}_[A-Za-z0-9]{6,}")
Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AuditTarget:
    """The target of an action; owners of `namespace` may read the entry."""

    resource: str
    namespace: str | None = None
    selector: str | None = None

    @classmethod
    def of_grant(cls, resource: Resource) -> Self:
        """The target of a grant, in its namespace if there is a single one."""
        return cls(str(resource), resource.namespaces if resource.is_one_namespace else None)


def set_actor(tx: Session, identity: Identity) -> None:
    """Sets the actor of the entries that this transaction records."""
    tx.info[_ACTOR] = identity


def record(
    tx: Session,
    action: str,
    target: AuditTarget,
    at: datetime,
    *,
    before: Values | None = None,
    after: Values | None = None,
    by: str | None = None,
) -> None:
    """Records an allowed action. `by` is its actor, if that is not the caller."""
    identity: Identity = tx.info.get(_ACTOR, LOCAL)
    row = entry_values(identity, action, target, at, REQUEST_ID.get(), by=by, before=before, after=after)
    tx.info.setdefault(_PENDING, []).append(row)


def write_pending(tx: Session) -> None:
    """Inserts the transaction's entries; the catalog calls this before every commit."""
    if pending := tx.info.pop(_PENDING, None):
        insert_values(tx, "audit_entries", pending)


def insert_entries(tx: Session, entries: Iterable[Mapping[str, Any]]) -> None:
    """Inserts entries that `entry_values` made. (`Any`: columns of many types.)"""
    tx.info.setdefault(_PENDING, []).extend(entries)


def entry_values(
    identity: Identity,
    action: str,
    target: AuditTarget,
    at: datetime,
    request: str | None,
    *,
    by: str | None = None,
    reason: str | None = None,
    before: Values | None = None,
    after: Values | None = None,
) -> dict[str, Any]:
    """A row's columns; one with a `reason` was denied. (`Any`: columns of many types.)"""
    assert action in ACTIONS, action
    detail = {
        "principal": identity.principal,
        "token": identity.token,
        "limit": _limit_text(identity),
        "on_behalf_of": by if by != identity.name else None,
        "request": request,
        "reason": _clean(reason) if reason is not None else None,
        "before": _bounded(before),
        "after": _bounded(after),
    }
    kept = {key: value for key, value in detail.items() if value is not None}
    return {
        "at": at,
        "action": action,
        "actor": identity.name,
        "namespace": target.namespace,
        "resource": _clean(target.resource),
        "selector": _clean(target.selector) if target.selector is not None else None,
        "outcome": "allowed" if reason is None else "denied",
        "detail": json.dumps(kept, ensure_ascii=False),
    }


def _limit_text(identity: Identity) -> str | None:
    limit = identity.limit
    if limit is None:
        return None
    actions = "every action" if limit.permissions is None else ", ".join(limit.permissions)
    places = "everything" if limit.resources is None else ", ".join(map(str, limit.resources))
    return _clean(f"{actions} on {places}")


def _bounded(values: Values | None) -> dict[str, object] | None:
    given = [(key, value) for key, value in (values or {}).items() if value is not None]
    kept = {_clean(key): _scalar(value) for key, value in given[:_MAX_VALUES]}
    if len(given) > _MAX_VALUES:
        kept["and_more"] = len(given) - _MAX_VALUES
    return kept or None


def _scalar(value: object) -> object:
    is_number = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_number else _clean(str(value))


def _clean(text: str) -> str:
    """The text, cut short, without any token and without what PostgreSQL or UTF-8 cannot hold."""
    if "adr_" in text:
        text = _SECRET.sub("adr_…", text)
    text = text.replace("\0", "�").encode("utf-8", "replace").decode()
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
