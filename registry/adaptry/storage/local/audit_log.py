"""The audit log role of a local registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from sqlmodel import select

from adaptry.core.access.conditions import Facts
from adaptry.core.errors import (
    Conflict,
    CorruptData,
    Invalid,
    MissingDependency,
    NotFound,
    PermissionDenied,
    ReadOnly,
    Unavailable,
)
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.transparency import ed25519, merkle
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
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.audit_log import entry_pages
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.audit_log.sequencer import Sequencer, log_state
from adaptry.storage.catalog.audit_log.subtrees import subtree
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import NamespaceRow
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.principals import require_administrator

_GLOB = re.compile(r"[*?\[]")
_SEALED_BY_LISTING = 1000
"""Maximum number of entries that a listing seals, so that many waiting entries do not delay it."""


@dataclass(frozen=True)
class LocalAuditLog(AuditLog):
    """The audit log of a local registry. An embedded registry has no background process, so reading seals
    pending entries."""

    context: RegistryContext

    def list(
        self,
        filters: AuditFilter,
        cursor: str | None = None,
        limit: int = 50,
        *,
        oldest_first: bool = False,
    ) -> Page[AuditEntry]:
        cursors.check_limit(limit)
        self._seal_if_possible(_SEALED_BY_LISTING)
        with self.context.catalog.read() as tx:
            return entry_pages.page(tx, self._namespaces(tx), filters, cursor, limit, oldest_first)

    def begin_export(self, filters: AuditFilter) -> AuditCheckpoint:
        facts = filters.model_dump(mode="json", exclude_none=True)
        with self.context.write() as tx:
            self._namespaces(tx)
            self.context.record(tx, "audit.export", AuditTarget("audit"), after=facts)
        with suppress(Conflict, CorruptData, MissingDependency):
            self._sequencer.run(self.context.clock(), waits_for_lease=False)
        return self.checkpoint()

    def sealed(self, start: int, limit: int = MAX_SEALED) -> SealedEntries:
        require_administrator(self.context, "read the whole audit log")
        _check_range(start, limit)
        with self.context.catalog.read() as tx:
            return SealedEntries(items=entry_pages.sealed(tx, start, limit))

    def checkpoint(self) -> AuditCheckpoint:
        self._seal_if_possible()
        with self.context.catalog.read() as tx:
            self._namespaces(tx)
            state = log_state(tx)
            return AuditCheckpoint(
                note=entry_pages.newest_note(tx), key=state.key, unsealed=entry_pages.count_unsealed(tx)
            )

    def checkpoints(self, after: int = 0, limit: int = MAX_SEALED) -> CheckpointNotes:
        require_administrator(self.context, "read the whole audit log")
        _check_range(after, limit)
        with self.context.catalog.read() as tx:
            return CheckpointNotes(notes=entry_pages.checkpoints(tx, after, limit))

    def prove_inclusion(self, seq: int, size: int) -> AuditProof:
        with self.context.catalog.read() as tx:
            namespaces = self._namespaces(tx)
            if not 0 <= seq < size <= log_state(tx).size or not entry_pages.is_in(tx, seq, namespaces):
                raise NotFound(f"no entry {seq} among the first {size} of the audit log")
            found = merkle.inclusion_proof(seq, size, lambda start, end: subtree(tx, start, end))
        return AuditProof(hashes=tuple(one.hex() for one in found))

    def prove_consistency(self, old: int, size: int) -> AuditProof:
        with self.context.catalog.read() as tx:
            self._namespaces(tx)
            known = log_state(tx).size
            if not 0 < old <= size <= known:
                raise NotFound(
                    f"the audit log has no checkpoints of {old} and {size} entries; it has {known}"
                )
            found = merkle.consistency_proof(old, size, lambda start, end: subtree(tx, start, end))
        return AuditProof(hashes=tuple(one.hex() for one in found))

    @property
    def _sequencer(self) -> Sequencer:
        return Sequencer(self.context.catalog, self.context.log_key)

    def _seal_if_possible(self, maximum: int | None = None) -> None:
        """Seals pending entries, unless a server does, nothing can be written, or this process cannot sign:
        the key is elsewhere, or the extra `audit` is not installed.
        """
        can_seal = self.context.seals_audit_on_read and ed25519.is_available()
        if can_seal and self._sequencer.has_its_key:
            with suppress(CorruptData, ReadOnly, Unavailable):
                self._sequencer.run(self.context.clock(), waits_for_lease=False, maximum=maximum)

    def _namespaces(self, tx: Transaction) -> Sequence[str] | None:
        """The namespaces about which the caller may read; None: everything. Raises `PermissionDenied`."""
        identity = self.context.identity
        if identity.may_administer:
            return None
        if not identity.may_somewhere("member.manage"):
            raise PermissionDenied(
                f"{identity.name} may not read the audit log; owners may read the entries about their"
                " namespaces, and administrators all entries"
            )
        granted = {one.namespaces for one in identity.read_resources}
        if any(map(_GLOB.search, granted)):
            known = tx.exec(select(NamespaceRow.name)).all()
            granted |= {name for name in known if any(fnmatchcase(name, glob) for glob in granted)}
        facts = Facts(now=self.context.clock())
        single = sorted(name for name in granted if not _GLOB.search(name))
        return tuple(name for name in single if identity.may_in("member.manage", name, facts))


def _check_range(start: int, limit: int) -> None:
    """Checks the requested range. Raises `Invalid`."""
    if not 0 <= start < 1 << 62 or not 1 <= limit <= MAX_SEALED:
        raise Invalid(f"a range begins at 0 or later, and has 1 to {MAX_SEALED} entries")
