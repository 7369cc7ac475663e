"""Epochs of a registry, of which each restore begins one; and the recalls that a restored backup lacks."""

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    epochs = op.create_table(
        "epochs",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("began_at", moment, nullable=False),
        sa.Column("floor", sa.Integer(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_epochs"),
    )
    op.create_table(
        "recall_claims",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.PrimaryKeyConstraint("name", "digest", name="pk_recall_claims"),
    )
    op.bulk_insert(
        epochs,
        [
            {
                "number": 1,
                "id": secrets.token_hex(8),
                "began_at": datetime.now(UTC),
                "floor": 0,
                "secret": secrets.token_hex(32),
            }
        ],
    )
