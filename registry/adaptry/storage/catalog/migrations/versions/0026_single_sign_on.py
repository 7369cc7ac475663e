"""Signing in at an identity provider: its users, its groups, and tokens that live by its confirmation."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "external_users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("refresh_token", sa.String(), nullable=True),
        *(sa.Column(name, _MOMENT, nullable=True) for name in ("confirmed_at", "ended_at", "claimed_until")),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_external_users_principal_id"),
        sa.PrimaryKeyConstraint("id", name="pk_external_users"),
        sa.UniqueConstraint("issuer", "subject", name="uq_external_users_issuer_subject"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_external_users_principal_id", "external_users", ["principal_id"])
    op.create_table(
        "provider_groups",
        sa.Column("claim", sa.String(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("set_at", _MOMENT, nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["principal_groups.id"], name="fk_provider_groups_group_id"),
        sa.PrimaryKeyConstraint("claim", name="pk_provider_groups"),
    )
    op.create_index("ix_provider_groups_group_id", "provider_groups", ["group_id"])
    op.add_column("tokens", sa.Column("external_id", sa.Integer(), nullable=True))
    op.create_index("ix_tokens_external_id", "tokens", ["external_id"])
