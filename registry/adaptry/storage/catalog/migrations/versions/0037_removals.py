"""An index of deleted adapters that still have versions, which are removed after the deletion."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("deleted_at IS NOT NULL AND version_count > 0")
    op.create_index("ix_adapters_removal", "adapters", ["id"], sqlite_where=where, postgresql_where=where)
