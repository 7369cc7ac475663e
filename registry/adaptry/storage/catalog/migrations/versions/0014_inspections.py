"""Results of inspections of weights files: non-finite values and norms, by the file's digest."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inspections",
        sa.Column("file_digest", sa.String(), nullable=False),
        sa.Column("inspection", sa.Integer(), nullable=False),
        sa.Column("tensors", sa.Integer(), nullable=False),
        sa.Column("nan", sa.BigInteger(), nullable=False),
        sa.Column("infinite", sa.BigInteger(), nullable=False),
        sa.Column("norm", sa.Float(), nullable=True),
        sa.Column("statistics", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("file_digest", name="pk_inspections"),
    )
