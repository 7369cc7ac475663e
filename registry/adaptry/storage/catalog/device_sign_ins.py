"""Device sign-ins in the catalog, by the hash of the device code."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, update
from sqlmodel import col, select

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import DeviceSignInRow


class DeviceSignIn(NamedTuple):
    """A waiting program; `principal` is the user who approved it, if one has."""

    key: str
    expires_at: datetime
    polled_at: datetime | None
    decided_at: datetime | None
    principal: int | None
    external: int | None
    token_until: datetime | None
    client_id: str


class Approval(NamedTuple):
    """The user who approved a program, and the latest expiry of the program's token."""

    principal: int
    external: int | None
    token_until: datetime | None


def count_waiting(tx: Transaction, now: datetime) -> int:
    """The number of waiting programs. Expired ones are deleted first."""
    tx.execute(delete(DeviceSignInRow).where(col(DeviceSignInRow.expires_at) <= now))
    return int(tx.execute(select(func.count()).select_from(DeviceSignInRow)).scalar_one())


def insert(tx: Transaction, device_sha256: str, user_code: str, client_id: str, expires_at: datetime) -> None:
    tx.add(
        DeviceSignInRow(
            device_sha256=device_sha256, user_code=user_code, client_id=client_id, expires_at=expires_at
        )
    )
    tx.flush()


def find(
    tx: Transaction, *, device_sha256: str | None = None, user_code: str | None = None
) -> DeviceSignIn | None:
    """The waiting program, found by either of its codes."""
    is_device = DeviceSignInRow.device_sha256 == device_sha256
    which = is_device if device_sha256 is not None else DeviceSignInRow.user_code == user_code
    row = tx.exec(select(DeviceSignInRow).where(which)).first()
    if row is None:
        return None
    return DeviceSignIn(
        row.device_sha256,
        row.expires_at,
        row.polled_at,
        row.decided_at,
        row.principal_id,
        row.external_id,
        row.token_until,
        row.client_id,
    )


def set_polled(tx: Transaction, device: DeviceSignIn, now: datetime) -> None:
    tx.execute(
        update(DeviceSignInRow).where(col(DeviceSignInRow.device_sha256) == device.key).values(polled_at=now)
    )


def set_decided(tx: Transaction, device: DeviceSignIn, approval: Approval | None, now: datetime) -> None:
    """Approves the program, or denies it if `approval` is None."""
    values: dict[str, object] = {"decided_at": now}
    if approval is not None:
        values |= {
            "principal_id": approval.principal,
            "external_id": approval.external,
            "token_until": approval.token_until,
        }
    tx.execute(
        update(DeviceSignInRow).where(col(DeviceSignInRow.device_sha256) == device.key).values(**values)
    )


def remove(tx: Transaction, device: DeviceSignIn) -> None:
    tx.execute(delete(DeviceSignInRow).where(col(DeviceSignInRow.device_sha256) == device.key))
