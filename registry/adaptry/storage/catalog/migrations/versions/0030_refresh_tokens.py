"""Refresh tokens of programs that were approved in a browser."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("device_sign_ins", sa.Column("client_id", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "refresh_tokens",
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        *(sa.Column(name, _MOMENT, nullable=False) for name in ("created_at", "expires_at")),
        *(sa.Column(name, _MOMENT, nullable=True) for name in ("used_at", "retry_until", "token_until")),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_refresh_tokens_token_id"),
        sa.PrimaryKeyConstraint("secret_sha256", name="pk_refresh_tokens"),
    )
    for name in ("family", "token_id", "expires_at"):
        op.create_index(f"ix_refresh_tokens_{name}", "refresh_tokens", [name])
