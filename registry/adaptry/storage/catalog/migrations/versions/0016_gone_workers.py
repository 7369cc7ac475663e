"""Declarations that a worker is gone, and how long each worker serves without the registry."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("max_age", sa.Integer(), nullable=True))
    op.add_column("workers", sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("workers", sa.Column("gone_by", sa.String(), nullable=True))
    op.add_column("workers", sa.Column("gone_reason", sa.String(), nullable=True))
