"""Rows of device sign-ins: programs that wait for an approval in a browser."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class DeviceSignInRow(Row, table=True):
    """A program that waits, by the SHA-256 of its device code, and the code that its user types.

    After the decision, `decided_at` is set; `principal_id` is the approving user's. `token_until`
    is when the token expires at the latest.
    """

    __tablename__ = "device_sign_ins"
    device_sha256: str = Field(primary_key=True)
    user_code: str = Field(unique=True)
    expires_at: datetime = Field(index=True, sa_type=Moment)
    polled_at: datetime | None = Field(default=None, sa_type=Moment)
    decided_at: datetime | None = Field(default=None, sa_type=Moment)
    principal_id: int | None = Field(default=None, foreign_key="principals.id")
    external_id: int | None = Field(default=None, foreign_key="external_users.id")
    token_until: datetime | None = Field(default=None, sa_type=Moment)
