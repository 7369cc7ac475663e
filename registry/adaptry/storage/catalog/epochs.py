"""Epochs: each restore of a registry begins one, so that numbers given after the backup are not reused.

Events, generations and numbers of an epoch are larger than any that earlier epochs can have used. Its id is
random: two restores of one backup are two epochs. Holders of a cursor of another epoch must read everything
again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.audit_log.log_key import RESTORED
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement

if TYPE_CHECKING:
    from sqlmodel import Session

if TYPE_CHECKING:
    from adaptry.storage.catalog.prepared import Reads

_MIN_STEP = 1_000_000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_EVENTS = 1_000_000_000
"""How many event numbers are skipped: more than any registry uses between a backup and its restore."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The epoch a registry is in. New generations begin above `floor`."""

    number: int
    id: str
    began_at: datetime
    floor: int
    secret: str

    def proof(self, name: str, digest: str, state: str) -> str:
        """Signs that this registry withdrew a version in this epoch: a worker presents it after a restore."""
        return _sign(self.secret, self.id, name, digest, state)

    def is_proof(self, proof: str, epoch: str, name: str, digest: str, state: str) -> bool:
        """Whether the registry signed this in an earlier epoch. Its current epoch needs no proof."""
        return epoch != self.id and hmac.compare_digest(proof, _sign(self.secret, epoch, name, digest, state))


def current(tx: Session) -> Epoch:
    row = tx.exec(sm.select(orm.EpochRow).order_by(sm.col(orm.EpochRow.number).desc()).limit(1)).one()
    return Epoch(row.number, row.id, row.began_at, row.floor, row.secret)


@statement
def _secret() -> Selection:
    newest_first = tables.epochs.c.number.desc()
    return sa.select(tables.epochs.c.secret).order_by(newest_first).limit(1)


def secret(tx: Reads) -> str:
    """The secret of the registry, which all its epochs have."""
    found: str = run_select(tx, _secret, {})[0].secret
    return found


@statement
def _floor() -> Selection:
    return sa.select(sa.func.max(tables.epochs.c.floor).label("floor"))


def floor(tx: Session) -> int:
    """New generations are larger than this."""
    return run_select(tx, _floor, {})[0].floor or 0


def begin(
    tx: Session, now: datetime, *, above: int = 0, after_event: int = 0, skip: int = 0, keep_tokens: bool
) -> Epoch:
    """Begins a new epoch: generations above `above`, events after `after_event`, and `skip` skipped numbers
    of each adapter.

    Unless `keep_tokens`, tokens are revoked, programs are signed out, invitations end, and webhooks are
    disabled: the original may still be running, and a copy must not send messages in its name. Open uploads
    are dropped, since backups do not contain their bytes.
    """
    was = current(tx)
    # By the clock, since the same backup may be restored twice: the floor is above the old generations as
    # long as there was less than one move per second.
    new = max(was.floor + _MIN_STEP, above + 1, int((now - _START).total_seconds()))
    rise = new - was.floor
    for row, column, *which in (
        (orm.AliasRow, orm.AliasRow.generation),
        (orm.VersionRow, orm.VersionRow.state_generation, sm.col(orm.VersionRow.state_generation) > 0),
        (orm.RolloutRow, orm.RolloutRow.generation),
        (orm.RolloutRow, orm.RolloutRow.alias_generation),
    ):
        tx.execute(sa.update(row).where(*which).values({sm.col(column): sm.col(column) + rise}))
    if skip:
        tx.execute(sa.update(orm.AdapterRow).values(next_number=sm.col(orm.AdapterRow.next_number) + skip))
    _skip_events(tx, max(after_event, tx.exec(sm.select(sa.func.max(orm.EventRow.seq))).one() or 0) + _EVENTS)
    if not keep_tokens:
        tx.execute(
            sa.update(orm.TokenRow).where(sm.col(orm.TokenRow.revoked_at).is_(None)).values(revoked_at=now)
        )
        tx.execute(sa.delete(orm.RefreshTokenRow))
        tx.execute(sa.delete(orm.DeviceSignInRow))
        tx.execute(
            sa.update(orm.InvitationRow)
            .where(sm.col(orm.InvitationRow.ended_at).is_(None))
            .values(ended_at=now)
        )
        restored = {"disabled_at": now, "disabled_reason": "the registry was restored from a backup"}
        tx.execute(
            sa.update(orm.WebhookRow).where(sm.col(orm.WebhookRow.disabled_at).is_(None)).values(restored)
        )
    tx.execute(sa.delete(orm.UploadRow).where(sm.col(orm.UploadRow.is_finished).is_(False)))
    tx.execute(sa.update(orm.AuditStateRow).values(holder=RESTORED, held_until=None))
    tx.add(
        orm.EpochRow(
            number=was.number + 1, id=os.urandom(8).hex(), began_at=now, floor=new, secret=was.secret
        )
    )
    tx.flush()
    return current(tx)


def _skip_events(tx: Session, to: int) -> None:
    """Makes the next event's number larger than `to`."""
    if tx.connection().dialect.name == "postgresql":
        tx.execute(sa.text("SELECT setval(pg_get_serial_sequence('events', 'seq'), :to)"), {"to": to})
        return
    tx.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'events'"))
    tx.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', :to)"), {"to": to})


def _sign(secret: str, *parts: str) -> str:
    return hmac.new(bytes.fromhex(secret), "\n".join(parts).encode(), hashlib.sha256).hexdigest()
