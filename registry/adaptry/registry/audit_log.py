"""The audit log role: an append-only record of changes and denied requests.

An entry is *sealed* when it has a number and its hash is a leaf of the log's Merkle tree (RFC 6962). Signed
checkpoints state the tree's size and root. Entries are exported and hashed as lines of text.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from adaptry.registry.records import Page, Value

AuditOutcome = Literal["allowed", "denied"]
Details = Mapping[str, str | int | float | bool | None]
"""The changed values: at most 32, with texts of at most 300 characters."""

MAX_SEALED = 1000
"""Maximum number of sealed entries that a call returns."""


class AuditEntry(Value):
    """An entry. `seq` is its number in the log, None until it is sealed; `leaf` the stored hash, in hex.

    `token` is the id of the token that was used, and `limit` the token's limits. `resource` is an adapter,
    a namespace, a principal or a base; `selector` its alias or version.
    """

    id: int
    seq: int | None = None
    at: datetime
    action: str
    actor: str
    principal: int | None = None
    token: int | None = None
    limit: str | None = None
    on_behalf_of: str | None = None
    request: str | None = None
    namespace: str | None = None
    resource: str
    selector: str | None = None
    outcome: AuditOutcome = "allowed"
    reason: str | None = None
    before: Details | None = None
    after: Details | None = None
    leaf: str | None = None

    @property
    def line(self) -> str:
        """The entry as one line of JSON, the same everywhere: the data of its leaf."""
        fields = self.model_dump(exclude={"id", "leaf", "at"}, exclude_none=True)
        fields["at"] = format_time(self.at)
        return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @property
    def what(self) -> str:
        """The resource with its selector, such as `acme/tone@prod`."""
        return f"{self.resource}@{self.selector}" if self.selector else self.resource


class AuditFilter(Value):
    """Selects entries; None selects all.

    `action` is an action, such as `alias.move`, or all actions of a scope, such as `alias.*`. `resource` is a
    namespace, an adapter, one of its aliases (`acme/tone@prod`), or a principal. `since` is inclusive,
    `until` exclusive.
    """

    actor: str | None = Field(default=None, max_length=193)
    action: str | None = Field(default=None, max_length=64)
    resource: str | None = Field(default=None, max_length=300)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    denied: bool | None = None

    @property
    def is_everything(self) -> bool:
        return self == AuditFilter()


class AuditCheckpoint(Value):
    """The newest signed checkpoint: a note (C2SP tlog-checkpoint), the key that verifies it, and the number
    of unsealed entries. Note and key are None if nothing was sealed yet.
    """

    note: str | None
    key: str | None
    unsealed: int


class AuditProof(Value):
    """The hashes of a proof of inclusion or consistency, in hex, as RFC 6962 orders them."""

    hashes: tuple[str, ...]


class SealedEntries(Value):
    """Sealed entries in the order of their numbers."""

    items: tuple[AuditEntry, ...]


class CheckpointNotes(Value):
    """Signed checkpoints, smallest first."""

    notes: tuple[str, ...]


class AuditLog(ABC):
    """Administrators read all entries; holders of `member.manage` in a namespace read those about that
    namespace.

    Other entries are left out. All methods raise `PermissionDenied` for other callers.
    """

    @abstractmethod
    def list(
        self,
        filters: AuditFilter,
        cursor: str | None = None,
        limit: int = 50,
        *,
        oldest_first: bool = False,
    ) -> Page[AuditEntry]:
        """Entries by their time, newest first, sealed or not. Raises `Invalid` for an unknown action."""

    @abstractmethod
    def begin_export(self, filters: AuditFilter) -> AuditCheckpoint:
        """Records the caller's export of these entries, seals all entries, and returns the newest
        checkpoint.
        """

    @abstractmethod
    def sealed(self, start: int, limit: int = MAX_SEALED) -> SealedEntries:
        """Sealed entries from number `start` on. Administrators only."""

    @abstractmethod
    def checkpoint(self) -> AuditCheckpoint:
        """The newest checkpoint."""

    @abstractmethod
    def checkpoints(self, after: int = 0, limit: int = MAX_SEALED) -> CheckpointNotes:
        """Checkpoints of more than `after` entries. Administrators only."""

    @abstractmethod
    def prove_inclusion(self, seq: int, size: int) -> AuditProof:
        """Proves that entry `seq` is in the log of the first `size` entries. Raises `NotFound`."""

    @abstractmethod
    def prove_consistency(self, old: int, size: int) -> AuditProof:
        """Proves that the log of `size` entries begins with the log of `old` entries. Raises `NotFound`."""


def format_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
