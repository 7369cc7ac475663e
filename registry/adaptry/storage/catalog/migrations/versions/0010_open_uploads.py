"""Partial indexes of unfinished uploads, so that finding one does not read the finished uploads of a day."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_uploads_tenant", "uploads")
    for name, column in (("ix_uploads_open", "tenant"), ("ix_uploads_coming", "digest")):
        op.create_index(
            name,
            "uploads",
            [column],
            sqlite_where=sa.text("is_finished IS 0"),
            postgresql_where=sa.text("is_finished IS false"),
        )
