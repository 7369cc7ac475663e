"""Device sign-ins: programs that wait until a user approves them in a browser."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "device_sign_ins",
        sa.Column("device_sha256", sa.String(), nullable=False),
        sa.Column("user_code", sa.String(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        *(sa.Column(name, _MOMENT, nullable=True) for name in ("polled_at", "decided_at")),
        sa.Column("principal_id", sa.Integer(), nullable=True),
        sa.Column("external_id", sa.Integer(), nullable=True),
        sa.Column("token_until", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_device_sign_ins_principal_id"),
        sa.ForeignKeyConstraint(
            ["external_id"], ["external_users.id"], name="fk_device_sign_ins_external_id"
        ),
        sa.PrimaryKeyConstraint("device_sha256", name="pk_device_sign_ins"),
        sa.UniqueConstraint("user_code", name="uq_device_sign_ins_user_code"),
    )
    op.create_index("ix_device_sign_ins_expires_at", "device_sign_ins", ["expires_at"])
