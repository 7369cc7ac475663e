"""The id of the base that a worker's engine serves, by which the registry looks up the base's name."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("base_id", sa.String(), nullable=True))
