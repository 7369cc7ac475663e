"""The audit log role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.audit_log import (
    MAX_SEALED,
    AuditCheckpoint,
    AuditEntry,
    AuditFilter,
    AuditLog,
    AuditProof,
    CheckpointNotes,
    SealedEntries,
)
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.records import Page

_PAGE = TypeAdapter(Page[AuditEntry])
_SEALED = TypeAdapter(SealedEntries)
_CHECKPOINT = TypeAdapter(AuditCheckpoint)
_NOTES = TypeAdapter(CheckpointNotes)
_PROOF = TypeAdapter(AuditProof)


@dataclass(frozen=True)
class HttpAuditLog(AuditLog):
    """The audit log of a server's registry."""

    server: Connection

    def list(
        self,
        filters: AuditFilter,
        cursor: str | None = None,
        limit: int = 50,
        *,
        oldest_first: bool = False,
    ) -> Page[AuditEntry]:
        wanted = filters.model_dump(mode="json", exclude_none=True)
        query = {
            **{key: str(value).lower() if value in (True, False) else value for key, value in wanted.items()},
            "cursor": cursor,
            "limit": limit,
            "oldest_first": "true" if oldest_first else None,
        }
        return self.server.request_value(_PAGE, "GET", api_path("audit"), query=query)

    def begin_export(self, filters: AuditFilter) -> AuditCheckpoint:
        body = filters.model_dump(mode="json", exclude_none=True)
        return self.server.request_value(_CHECKPOINT, "POST", api_path("audit", "exports"), body=body)

    def sealed(self, start: int, limit: int = MAX_SEALED) -> SealedEntries:
        query = {"start": start, "limit": limit}
        return self.server.request_value(_SEALED, "GET", api_path("audit", "sealed"), query=query)

    def checkpoint(self) -> AuditCheckpoint:
        return self.server.request_value(_CHECKPOINT, "GET", api_path("audit", "checkpoint"))

    def checkpoints(self, after: int = 0, limit: int = MAX_SEALED) -> CheckpointNotes:
        query = {"after": after, "limit": limit}
        return self.server.request_value(_NOTES, "GET", api_path("audit", "checkpoints"), query=query)

    def prove_inclusion(self, seq: int, size: int) -> AuditProof:
        query = {"seq": seq, "size": size}
        return self.server.request_value(_PROOF, "GET", api_path("audit", "inclusion"), query=query)

    def prove_consistency(self, old: int, size: int) -> AuditProof:
        query = {"old": old, "size": size}
        return self.server.request_value(_PROOF, "GET", api_path("audit", "consistency"), query=query)
