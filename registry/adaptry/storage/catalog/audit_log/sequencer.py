"""The sequencer: numbers the entries of the log, and signs its checkpoints.

An entry is sealed when it has a number and the hash of its line. All committed entries without a number are
sealed next, so a transaction that commits late, with an earlier key, is never skipped; gaps between keys have
no meaning. One process at a time does this, while its lease lasts. Nothing depends on the lease: each batch
is sealed in one transaction, which reads the log's size and writes the next.

Signing follows in a separate transaction. If the process dies in between, the next one signs the same tree.

Anyone who can write to the database can remove the last entries together with the checkpoints that cover
them; the rest is a log that was once signed. A process remembers the length of the log, so it detects this
while it runs; afterwards, only a checkpoint that was kept elsewhere shows it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, func, update
from sqlalchemy import select as select_columns

from adaptry.core.errors import Conflict, CorruptData
from adaptry.core.failpoints import reach
from adaptry.core.transparency.checkpoint import LogCheckpoint, VerifierKey
from adaptry.core.transparency.merkle import Peaks, leaf_hash
from adaptry.storage.catalog.audit_log.entries import entry_of
from adaptry.storage.catalog.audit_log.log_key import RESTORED, LogKey
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record
from adaptry.storage.catalog.audit_log.subtrees import store_subtrees
from adaptry.storage.catalog.database import Catalog, Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change_each, count_changed, insert_new
from adaptry.storage.catalog.rows import AuditCheckpointRow, AuditEntryRow, AuditStateRow
from adaptry.storage.catalog.version_info import Columns, table_of

LEASE = timedelta(seconds=3)
_BATCH = 200  # entries of one transaction, which others wait for
_STATE = 1
_ALTERED = "the audit log was altered, so nothing more is sealed; run `adaptry audit verify`"
_SHORTENED = (
    "the audit log was altered: entries that were sealed are missing or changed, so nothing more is"
    " sealed; run `adaptry audit verify --checkpoint FILE` (if the registry was restored from a backup:"
    " restart its servers)"
)
_ENTRIES, _STATES = table_of(AuditEntryRow), table_of(AuditStateRow)
_CHECKPOINTS = table_of(AuditCheckpointRow)
_STATE_ROW = select_columns(_STATES).where(_STATES.c.id == _STATE)
_UNSEALED = select_columns(_ENTRIES).where(_ENTRIES.c.seq.is_(None)).order_by(_ENTRIES.c.id).limit(_BATCH)
_FIRST_UNSEALED = select_columns(_ENTRIES.c.id).where(_ENTRIES.c.seq.is_(None)).limit(1)
_SIGNED = select_columns(func.max(_CHECKPOINTS.c.size).label("size"))
_SIGNED_AT = select_columns(_CHECKPOINTS.c.size).where(_CHECKPOINTS.c.size == bindparam("signed"))
_LEAF = select_columns(_ENTRIES.c.leaf).where(_ENTRIES.c.seq == bindparam("number"))
_SEAL = (
    update(_ENTRIES)
    .where(_ENTRIES.c.id == bindparam("entry"))
    .values(seq=bindparam("number"), leaf=bindparam("hash"))
)
_STATE_FIELDS = ("size", "peaks", "key", "holder", "held_until")
_SET_STATE = (
    update(_STATES)
    .where(_STATES.c.id == _STATE)
    .values({name: bindparam(f"new_{name}") for name in _STATE_FIELDS})
)


class LogState(NamedTuple):
    """The state of a log: how far it is sealed and signed, whether entries are unsealed, and which process
    seals.
    """

    size: int
    signed: int
    unsealed: bool
    row: AuditStateRow | None

    @property
    def key(self) -> str | None:
        """The public key that the log is signed with."""
        return self.row.key if self.row else None

    def is_free_for(self, holder: str, now: datetime) -> bool:
        """Whether no other process has the lease."""
        return self.row is None or _is_free(self.row, holder, now)


class _SealedEnd(NamedTuple):
    """The number of sealed entries, and the hash of the last one."""

    size: int
    leaf: str | None


class Sequencer:
    """Seals the log of a catalog, as long as no other process does; `holder` names this one."""

    def __init__(self, catalog: Catalog, key: LogKey, holder: str | None = None) -> None:
        self._catalog = catalog
        self._key = key
        self._holder = holder or secrets.token_hex(8)
        self._seen = _SealedEnd(0, None)

    def run(self, now: datetime, *, waits_for_lease: bool = True, maximum: int | None = None) -> int:
        """Seals pending entries, and signs. Returns how many entries were sealed: none while another process
        holds the lease. With `waits_for_lease` False, seals once and takes no lease, and may stop after
        `maximum` entries.

        Raises `Conflict` if the log was signed with another key, `CorruptData` if entries were altered that
        the next number depends on, or sealed entries are gone since the last time, `Unavailable`.
        """
        sealed = 0
        while True:
            seen = self._seen  # before the read, so that another thread's later look is not compared with it
            with self._catalog.read_prepared() as tx:
                state = log_state(tx)
                self._require_continued(tx, seen, state.size)
            is_done = not state.unsealed or (maximum is not None and sealed >= maximum)
            if is_done and state.signed >= state.size:
                return sealed
            if not is_done:
                if waits_for_lease and not state.is_free_for(self._holder, now):
                    return sealed
                count = self._seal(now, waits_for_lease)
                if count == 0:
                    return sealed
                sealed += count
                reach("audit.after_seal")
            self._sign(now)

    def _require_continued(self, tx: Reads, seen: _SealedEnd, size: int) -> None:
        """Raises `CorruptData` if the log does not continue what this process has seen of it."""
        if size < seen.size or _leaf(tx, seen.size) != seen.leaf:
            raise CorruptData(_SHORTENED)
        if size > self._seen.size:
            self._seen = _SealedEnd(size, _leaf(tx, size))

    @property
    def has_its_key(self) -> bool:
        """Whether this process has the key that the log is signed with, or may sign it with another."""
        with self._catalog.read_prepared() as tx:
            state = log_state(tx)
        if state.key is None or (state.row and state.row.holder == RESTORED):
            return True
        origin = state.row.origin if state.row else ""
        return self._key.is_made and state.key == str(self._verifier(origin))

    def _seal(self, now: datetime, waits_for_lease: bool) -> int:
        """Seals one batch; nothing if another process holds the lease."""
        try:
            return self._seal_batch(now, waits_for_lease)
        except Exception as error:
            if not _violates_constraint(error):
                raise
            raise CorruptData(f"{_ALTERED}: an entry has the next number already") from error

    def _seal_batch(self, now: datetime, waits_for_lease: bool) -> int:
        with self._catalog.write() as tx:
            row = _state_row(tx)
            if waits_for_lease and not _is_free(row, self._holder, now):
                return 0
            if row.holder == RESTORED:
                self._use_own_key(tx, row, now)
            if waits_for_lease:
                row.holder, row.held_until = self._holder, now + LEASE
            row.key = self._checked_key(row)
            unsealed = run_select(tx, _UNSEALED, {})
            _append(tx, row, unsealed)
            return len(unsealed)

    def _sign(self, now: datetime) -> None:
        """Signs the sealed log. If a power cut loses the signature, the next sequencer signs the same."""
        with self._catalog.read_prepared() as tx:
            row = _state_row(tx)
            peaks = _peaks(row)
            if run_select(tx, _SIGNED_AT, {"signed": row.size}):
                return
        self._checked_key(row)
        note = LogCheckpoint(row.origin, peaks.size, peaks.root).sign(self._key.seed())
        with self._catalog.write_nondurable() as tx:
            if not run_select(tx, _SIGNED_AT, {"signed": peaks.size}):
                insert_new(tx, "audit_checkpoints", {"size": peaks.size, "note": note, "at": now})

    def _use_own_key(self, tx: Transaction, row: AuditStateRow, now: datetime) -> None:
        """After a restore, signs with this process's key, and records if that is another one."""
        if row.key is not None and row.key != str(self._verifier(row.origin)):
            record(tx, "audit.replace_key", AuditTarget("audit"), now, before={"key": row.key})
            row.key = None
        row.holder = None

    def _checked_key(self, row: AuditStateRow) -> str:
        """This process's public key. Raises `Conflict` if the log is signed with another."""
        key = str(self._verifier(row.origin))
        if row.key not in (None, key):
            raise Conflict(
                "the audit log is not sealed: this process does not have the key that it is signed with; give"
                " all servers the same signing secret, or put the file audit-key back; if the key is lost:"
                " adaptry admin replace-audit-key"
            )
        return key

    def _verifier(self, origin: str) -> VerifierKey:
        return VerifierKey(origin, self._key.public)


def _violates_constraint(error: Exception) -> bool:
    """Whether a driver or SQLAlchemy raised the error because a row violates a constraint. All of them use
    PEP 249's name for it.
    """
    return any(kind.__name__ == "IntegrityError" for kind in type(error).__mro__)


def log_state(tx: Reads) -> LogState:
    found = run_select(tx, _STATE_ROW, {})
    is_unsealed = bool(run_select(tx, _FIRST_UNSEALED, {}))
    if not found:
        return LogState(0, 0, is_unsealed, None)
    row = _state_of(found[0])
    signed = run_select(tx, _SIGNED, {})[0].size or 0
    return LogState(row.size, signed, is_unsealed, row)


def _leaf(tx: Reads, size: int) -> str | None:
    """The hash of the last of the first `size` entries."""
    found = run_select(tx, _LEAF, {"number": size - 1})
    return found[0].leaf if found else None


def replace_key(tx: Transaction, now: datetime) -> None:
    """Lets the next process that seals the log sign with its own key. The log records the replacement."""
    row = _state_row(tx)
    record(tx, "audit.replace_key", AuditTarget("audit"), now, before={"key": row.key})
    row.key, row.holder = None, None
    _store_state(tx, row)


def _is_free(row: AuditStateRow, holder: str, now: datetime) -> bool:
    return row.holder in (None, holder, RESTORED) or row.held_until is None or row.held_until <= now


def _state_row(tx: Reads) -> AuditStateRow:
    found = run_select(tx, _STATE_ROW, {})
    if found:
        return _state_of(found[0])
    return AuditStateRow(id=_STATE, origin=f"adaptry/audit/{secrets.token_hex(8)}", size=0, peaks="")


def _state_of(columns: Columns) -> AuditStateRow:
    """A row that no session tracks; `_store_state` stores its changes."""
    return AuditStateRow(**columns._asdict())


def _store_state(tx: Transaction, row: AuditStateRow) -> None:
    if not count_changed(tx, _SET_STATE, {f"new_{name}": getattr(row, name) for name in _STATE_FIELDS}):
        insert_new(tx, "audit_state", row.model_dump())


def _peaks(row: AuditStateRow) -> Peaks:
    try:
        hashes = [bytes.fromhex(text) for text in row.peaks.split()]
    except ValueError as error:
        raise CorruptData(f"{_ALTERED}: its state cannot be read") from error
    if row.size < 0 or len(hashes) != row.size.bit_count():
        raise CorruptData(f"{_ALTERED}: its state contradicts itself")
    return Peaks(row.size, hashes)


def _append(tx: Transaction, state: AuditStateRow, rows: Sequence[Columns]) -> None:
    peaks, changes = _peaks(state), []
    for row in rows:
        entry = entry_of(row).model_copy(update={"seq": peaks.size})
        leaf = leaf_hash(entry.line.encode())
        changes.append({"entry": row.id, "number": peaks.size, "hash": leaf.hex()})
        completed = peaks.append(leaf)
        store_subtrees(tx, peaks.size, completed)
    change_each(tx, _SEAL, changes)
    state.size, state.peaks = peaks.size, " ".join(peak.hex() for peak in peaks.hashes)
    _store_state(tx, state)
