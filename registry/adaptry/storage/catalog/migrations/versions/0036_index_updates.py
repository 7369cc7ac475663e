"""Adapters whose changed search terms are not yet on all of their versions; approvals by version, for
deletions.
"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "index_updates",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("below", sa.Integer(), nullable=False),
        sa.Column("new_terms", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("adapter_id", name="pk_index_updates"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_index_updates_adapter_id"),
    )
    op.create_index("ix_approvals_version", "approvals", ["version_id"])
