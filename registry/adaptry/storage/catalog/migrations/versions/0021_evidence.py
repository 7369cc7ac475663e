"""Evidence: columns for facts about a measured value beyond its metric, and for its withdrawal.

Logged metrics become evidence for which these facts are unknown. Only columns are added, so a large table is
not rewritten.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_TABLE = "metric_values"
_TEXTS = ("task", "task_version", "task_hash", "filter")
_RUN = ("harness", "harness_version", "harness_commit", "chat_template", "format")
_FILES = ("file_digest", "samples_digest")
_HAS_FILE, _IS_LOGGED = sa.text("file_digest IS NOT NULL"), sa.text("file_digest IS NULL")


def upgrade() -> None:
    columns: list[sa.Column[Any]] = [  # `Any`: columns of several types
        sa.Column(name, sa.String(), nullable=True) for name in ("base_id", *_TEXTS)
    ]
    columns += [
        sa.Column("stderr", sa.Float(), nullable=True),
        sa.Column("n", sa.BigInteger(), nullable=True),
        sa.Column("direction", sa.String(), nullable=True),
        sa.Column("dataset", sa.String(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
    ]
    columns += [sa.Column(name, sa.String(), nullable=True) for name in (*_RUN, *_FILES)]
    columns += [
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawn_by", sa.String(), nullable=True),
        sa.Column("withdrawn_reason", sa.String(), nullable=True),
    ]
    for column in columns:
        op.add_column(_TABLE, column)
    op.drop_index("ix_metric_values_version_id", _TABLE)
    op.create_index("ix_metric_values_version", _TABLE, ["version_id", "id"])
    op.create_index("ix_metric_values_task", _TABLE, ["version_id", "task", "metric", "id"])
    op.create_index(
        "ix_metric_values_file",
        _TABLE,
        ["version_id", "file_digest"],
        sqlite_where=_HAS_FILE,
        postgresql_where=_HAS_FILE,
    )
    op.create_index(
        "ix_metric_values_logged",
        _TABLE,
        ["version_id", "id"],
        sqlite_where=_IS_LOGGED,
        postgresql_where=_IS_LOGGED,
    )
