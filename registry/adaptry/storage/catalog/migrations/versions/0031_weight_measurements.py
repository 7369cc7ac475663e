"""Statistics of revisions' updates, and distances between them, by digest; principals by kind and name."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "weight_measurements",
        sa.Column("first", sa.String(), nullable=False),
        sa.Column("second", sa.String(), nullable=False),
        sa.Column("measurement", sa.Integer(), nullable=False),
        sa.Column("figures", sa.LargeBinary(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("first", "second", name="pk_weight_measurements"),
    )
    op.create_index("ix_weight_measurements_second", "weight_measurements", ["second"])
    op.create_index("ix_principals_kind", "principals", ["kind", "name"])
