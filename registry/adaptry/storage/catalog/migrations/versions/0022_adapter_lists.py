"""Indexes for lists of adapters in several orders, and how many versions each adapter has."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_TABLE = "adapters"
_EXISTS = sa.text("deleted_at IS NULL")
_ORDERS = {"updated": "updated_at", "downloads": "downloads", "versions": "version_count"}


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column("version_count", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE adapters SET version_count ="
        " (SELECT COUNT(*) FROM versions WHERE versions.adapter_id = adapters.id)"
    )
    _create_index("visible", "visibility", "name")
    for name, column in _ORDERS.items():
        _create_index(name, "visibility", sa.text(f"{column} DESC"), "name")
    for name, column in _ORDERS.items():
        _create_index(f"namespace_{name}", "namespace", "visibility", sa.text(f"{column} DESC"), "name")


def _create_index(name: str, *columns: str | sa.TextClause) -> None:
    op.create_index(
        f"ix_adapters_{name}", _TABLE, list(columns), sqlite_where=_EXISTS, postgresql_where=_EXISTS
    )
