"""The audit log. It begins empty; the events record earlier changes."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", _LONG, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=True),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("selector", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("seq", _LONG, nullable=True),
        sa.Column("leaf", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_entries_at", "audit_entries", ["at", "id"])
    for column in ("actor", "action", "resource", "namespace"):
        op.create_index(f"ix_audit_entries_{column}", "audit_entries", [column, "at", "id"])
    op.create_index("ix_audit_entries_seq", "audit_entries", ["seq"], unique=True)
    op.create_table(
        "audit_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("size", _LONG, nullable=False),
        sa.Column("peaks", sa.Text(), nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("held_until", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_state"),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("size", _LONG, autoincrement=False, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "audit_subtrees",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("number", _LONG, nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name="pk_audit_subtrees"),
    )
