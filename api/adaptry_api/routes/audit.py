"""The audit log: listed, exported, and proved."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from pydantic import AwareDatetime

from adaptry.registry import protocol
from adaptry.registry.audit_log import (
    MAX_SEALED,
    AuditCheckpoint,
    AuditEntry,
    AuditFilter,
    AuditProof,
    CheckpointNotes,
    SealedEntries,
)
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/audit", "audit")
_Seq = Annotated[int, Query(ge=0, lt=2**62, description="The number of an entry.")]
_Start = Annotated[int, Query(ge=0, lt=2**62, description="The number of the first entry.")]
_Size = Annotated[int, Query(ge=0, lt=2**62, description="A number of entries, as a checkpoint states it.")]
_Many = Annotated[int, Query(ge=1, le=MAX_SEALED)]


@ROUTES.get("")
def list_audit_entries(
    request: Request,
    registry: CallersRegistry,
    actor: Annotated[
        str | None, Query(max_length=193, description="Only entries with this actor, a principal.")
    ] = None,
    action: Annotated[
        str | None, Query(max_length=64, description="Only this action (`alias.move`) or scope (`alias.*`).")
    ] = None,
    resource: Annotated[
        str | None,
        Query(
            max_length=300,
            description="A namespace, an adapter, one of its aliases (`acme/tone@prod`), or a principal.",
        ),
    ] = None,
    since: Annotated[
        AwareDatetime | None, Query(description="Only entries at this time or later; give a time zone.")
    ] = None,
    until: Annotated[
        AwareDatetime | None, Query(description="Only entries before this time; give a time zone.")
    ] = None,
    denied: Annotated[bool | None, Query(description="Only denied actions, or only allowed ones.")] = None,
    oldest_first: Annotated[bool, Query(description="Begin with the oldest entry.")] = False,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AuditEntry]:
    """List entries of the audit log, newest first.

    Administrators see all entries, holders of `member.manage` in a namespace those about that namespace. An
    entry without `seq` is not sealed yet.
    """
    app_state_of(request).store_denials()
    where = AuditFilter(
        actor=actor, action=action, resource=resource, since=since, until=until, denied=denied
    )
    return registry.audit.list(where, cursor, limit, oldest_first=oldest_first)


@ROUTES.post("/exports", status_code=201)
def export_audit_log(request: Request, registry: CallersRegistry, body: AuditFilter) -> AuditCheckpoint:
    """Begin an export of the audit log.

    The log records the export. All entries are sealed first; the response is the checkpoint that covers them.
    """
    app_state_of(request).store_denials()
    return registry.audit.begin_export(body)


@ROUTES.get("/sealed")
def list_sealed_entries(
    registry: CallersRegistry, start: _Start = 0, limit: _Many = MAX_SEALED
) -> SealedEntries:
    """List sealed entries in the order of their numbers. Administrators only."""
    return registry.audit.sealed(start, limit)


@ROUTES.get("/checkpoint")
def get_audit_checkpoint(request: Request, registry: CallersRegistry) -> AuditCheckpoint:
    """Get the newest signed checkpoint.

    A note as defined by c2sp.org/tlog-checkpoint, the key that verifies it, and the number of unsealed
    entries.
    """
    app_state_of(request).store_denials()
    return registry.audit.checkpoint()


@ROUTES.get("/checkpoints")
def list_audit_checkpoints(
    registry: CallersRegistry, after: _Size = 0, limit: _Many = MAX_SEALED
) -> CheckpointNotes:
    """List signed checkpoints, smallest first.

    Only checkpoints with more than `after` entries. Administrators only.
    """
    return registry.audit.checkpoints(after, limit)


@ROUTES.get("/inclusion")
def prove_inclusion(registry: CallersRegistry, seq: _Seq, size: _Size) -> AuditProof:
    """Prove that an entry is in the log of the first `size` entries (RFC 6962)."""
    return registry.audit.prove_inclusion(seq, size)


@ROUTES.get("/consistency")
def prove_consistency(registry: CallersRegistry, old: _Size, size: _Size) -> AuditProof:
    """Prove that the log of `size` entries begins with that of `old` entries.

    This is a consistency proof as defined by RFC 6962.
    """
    return registry.audit.prove_consistency(old, size)
