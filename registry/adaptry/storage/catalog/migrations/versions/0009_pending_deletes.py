"""Marks on unused files, with the time of marking; and pending deletes."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("unneeded_since", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "leaving",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("going_since", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_leaving"),
    )
    op.create_index("ix_leaving_since", "leaving", ["since"])
