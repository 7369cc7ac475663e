"""Rows of device sign-ins: programs that wait for approval in a browser, and the refresh
tokens of programs that were approved.
"""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class DeviceSignInRow(Row, table=True):
    """A program that waits, by the SHA-256 of its device code, and the code that its user types.

    `decided_at` is set once a user has approved or denied the program; `principal_id` is that of an approving
    user. `token_until` is when the token expires at the latest. `client_id` is the name that the program gave
    itself.
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
    client_id: str = Field(default="", sa_column_kwargs={"server_default": ""})


class RefreshTokenRow(Row, table=True):
    """A refresh token of a program, by the SHA-256 of its secret. All that followed from one approval are one
    `family`; `token_id` is the access token that was issued with it.

    `used_at` is when it was exchanged; until `retry_until` it may be exchanged again, since the answer may
    have been lost. `token_until` is when the access tokens expire at the latest.
    """

    __tablename__ = "refresh_tokens"
    secret_sha256: str = Field(primary_key=True)
    family: str = Field(index=True)
    client_id: str
    token_id: int = Field(foreign_key="tokens.id", index=True)
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(index=True, sa_type=Moment)
    used_at: datetime | None = Field(default=None, sa_type=Moment)
    retry_until: datetime | None = Field(default=None, sa_type=Moment)
    token_until: datetime | None = Field(default=None, sa_type=Moment)
