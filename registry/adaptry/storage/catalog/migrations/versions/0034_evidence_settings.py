"""How the task of an evaluation was run, such as the number of examples in its prompts."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("metric_values", sa.Column("settings", sa.String(), nullable=True))
