"""Known damage: files with changed or lost bytes, and the revisions that need them."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "damaged_files",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_damaged_files"),
    )
    op.create_table(
        "damaged_revisions",
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("file", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "file", name="pk_damaged_revisions"),
    )
    op.create_index("ix_damaged_revisions_file", "damaged_revisions", ["file"])
