"""Workers, what each has loaded, and rollouts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "workers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("base", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("slots", sa.Integer(), nullable=True),
        sa.Column("seen", sa.BigInteger(), nullable=True),
        sa.Column("lease", sa.Integer(), nullable=False),
        sa.Column("first_at", moment, nullable=False),
        sa.Column("reported_at", moment, nullable=False),
        sa.Column("is_answering", sa.Boolean(), nullable=False),
        sa.Column("troubles", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("name", name="uq_workers_name"),
    )
    op.create_index("ix_workers_owner", "workers", ["owner"])
    op.create_table(
        "residents",
        sa.Column("worker_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("served_as", sa.String(), nullable=False),
        sa.Column("condition", sa.String(), nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.Column("last_used", moment, nullable=True),
        sa.Column("ended_at", moment, nullable=True),
        sa.Column("dropped_at", moment, nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["workers.id"], name="fk_residents_worker_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_residents_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("worker_id", "version_id", "served_as", name="pk_residents"),
    )
    op.create_index("ix_residents_version", "residents", ["version_id"])
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("was_number", sa.Integer(), nullable=False),
        sa.Column("was_digest", sa.String(), nullable=False),
        sa.Column("alias_generation", sa.Integer(), nullable=False),
        sa.Column("steps", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("every", sa.Integer(), nullable=True),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("started_by", sa.String(), nullable=False),
        sa.Column("step_at", moment, nullable=False),
        sa.Column("ended_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_rollouts_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rollouts_alias", "rollouts", ["adapter_id", "alias"])
    op.create_index("ix_rollouts_version_id", "rollouts", ["version_id"])
