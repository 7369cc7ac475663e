"""Files that evaluation programs posted, kept apart until they are attached to a version."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "posted_files",
        sa.Column("id", _LONG, nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("file_digest", sa.String(), nullable=False),
        sa.Column("git_id", sa.String(), nullable=False),
        sa.Column("size", _LONG, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("stored", _LONG, nullable=False),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("posted_by", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("adapter", sa.String(), nullable=True),
        sa.Column("revision", sa.String(), nullable=True),
        sa.Column("subject", sa.String(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_posted_files"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_posted_files_posted_at", "posted_files", ["posted_at"])
    op.create_index("ix_posted_files_run", "posted_files", ["namespace", "posted_by", "run"])
    op.create_index("ix_posted_files_namespace", "posted_files", ["namespace", "id"])
