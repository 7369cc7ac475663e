"""Trusted publishing: issuers of ID tokens, publishers of adapters, and the ID tokens that were used."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "issuers",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "url", "kind", "audience")),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_issuers"),
        sa.UniqueConstraint("name", name="uq_issuers_name"),
        sa.UniqueConstraint("url", name="uq_issuers_url"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "publishers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("project_id", "owner_id", "workflow")),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("branch", sa.String(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuers.id"], name="fk_publishers_issuer_id"),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_publishers_principal_id"),
        sa.PrimaryKeyConstraint("id", name="pk_publishers"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_publishers_namespace_name", "publishers", ["namespace", "name"])
    op.create_index("ix_publishers_issuer_id", "publishers", ["issuer_id"])
    op.create_table(
        "used_id_tokens",
        sa.Column("jti_sha256", sa.String(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("jti_sha256", name="pk_used_id_tokens"),
    )
    op.create_index("ix_used_id_tokens_expires_at", "used_id_tokens", ["expires_at"])
