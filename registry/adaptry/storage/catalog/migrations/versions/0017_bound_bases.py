"""The base to which a version was bound, if its files do not identify the base by content."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("bound_base", sa.String(), nullable=True))
