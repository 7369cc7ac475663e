"""Policies of aliases, approvals, and the decisions that were made."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=True),
        sa.Column("adapter_id", sa.Integer(), nullable=True),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("set_at", _MOMENT, nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_policies_adapter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_policies_namespace", "policies", ["namespace", "alias", "version"], unique=True)
    op.create_index("ix_policies_adapter", "policies", ["adapter_id", "alias", "version"], unique=True)
    op.create_table(
        "approvals",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("approved_by", sa.String(), nullable=False),
        sa.Column("approved_at", _MOMENT, nullable=False),
        sa.Column("withdrawn_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_approvals_adapter_id"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_approvals_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "adapter_id", "alias", "version_id", "generation", "approved_by", name="pk_approvals"
        ),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("record_digest", sa.String(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_promotions_adapter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_promotions_adapter", "promotions", ["adapter_id", "id"])
    op.create_index("ix_promotions_alias", "promotions", ["adapter_id", "alias", "id"])
