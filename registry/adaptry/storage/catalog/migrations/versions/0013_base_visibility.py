"""Visibility of bases. Existing bases stay readable by every token, as before."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bases", sa.Column("visibility", sa.String(), nullable=False, server_default="private"))
    op.execute("UPDATE bases SET visibility = 'internal'")
    op.add_column("base_names", sa.Column("namespace", sa.String(), nullable=False, server_default=""))
    for (name,) in op.get_bind().execute(sa.text("SELECT name FROM base_names WHERE name LIKE '%/%'")).all():
        op.get_bind().execute(
            sa.text("UPDATE base_names SET namespace = :namespace WHERE name = :name"),
            {"namespace": name.partition("/")[0], "name": name},
        )
    op.create_index("ix_base_names_namespace", "base_names", ["namespace"])
