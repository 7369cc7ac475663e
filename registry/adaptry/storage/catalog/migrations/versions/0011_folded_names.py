"""Names: no two new ones differ only in case; workers are named per owner, schedules per namespace.

`folded` is a name in lower case, and unique. Of names that differ only in case already, one has it and the
others have none, so that all of them stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Of each table: the columns within which a name is unique, the name's column, and which rows count.
_TABLES = (
    ("adapters", (), "name", "deleted_at IS NULL"),
    ("namespaces", (), "name", "1 = 1"),
    ("base_names", (), "name", "1 = 1"),
    ("aliases", ("adapter_id",), "alias", "version_id IS NOT NULL"),
    ("marks", ("adapter_id",), "name", "1 = 1"),
)


def upgrade() -> None:
    connection = op.get_bind()
    for table, within, name, counts in _TABLES:
        op.add_column(table, sa.Column("folded", sa.String(), nullable=True))
        group = ", ".join((*within, f"lower({name})"))
        key = ", ".join((*within, name))
        firsts = ", ".join((*within, f"min({name})"))
        connection.execute(
            sa.text(
                f"UPDATE {table} SET folded = lower({name}) WHERE ({key}) IN "
                f"(SELECT {firsts} FROM {table} WHERE {counts} GROUP BY {group})"
            )
        )
        op.create_index(f"ix_{table}_folded", table, [*within, "folded"], unique=True)
    _name_workers_per_owner(connection)
    with op.batch_alter_table("job_schedules") as schedules:
        schedules.drop_constraint("pk_job_schedules", type_="primary")
        schedules.create_primary_key("pk_job_schedules", ["namespace", "name"])


def _name_workers_per_owner(connection: sa.Connection) -> None:
    """SQLite changes a constraint by remaking the table, which would delete the rows that refer to it."""
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        (made,) = connection.execute(
            sa.text("SELECT sql FROM sqlite_master WHERE name = 'residents' AND type = 'table'")
        ).one()
        connection.execute(sa.text("CREATE TABLE residents_aside AS SELECT * FROM residents"))
        connection.execute(sa.text("DROP TABLE residents"))
    with op.batch_alter_table("workers") as workers:
        workers.drop_constraint("uq_workers_name", type_="unique")
        workers.create_unique_constraint("uq_workers_owner_name", ["owner", "name"])
    if is_sqlite:
        connection.execute(sa.text(made))
        connection.execute(sa.text("INSERT INTO residents SELECT * FROM residents_aside"))
        connection.execute(sa.text("DROP TABLE residents_aside"))
        op.create_index("ix_residents_version", "residents", ["version_id"])
