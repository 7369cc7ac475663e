"""The base that someone bound a version to, where its files do not say by content which one it is."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("bound_base", sa.String(), nullable=True))
