"""A catalog taken back to an older schema, for tests of how it is brought up to date."""

from __future__ import annotations

import sqlite3

_NEW_TABLES = (
    "job_schedules",
    "job_lines",
    "job_steps",
    "jobs",
    "runners",
    "rollouts",
    "residents",
    "workers",
    "leaving",
)


_FOLDED = ("adapters", "namespaces", "base_names", "aliases", "marks")


def back_to_0012(database: sqlite3.Connection) -> None:
    """Takes away what schemas 0013 and later added."""
    database.execute("ALTER TABLE bases DROP COLUMN visibility")
    database.execute("DROP INDEX ix_base_names_namespace")
    database.execute("ALTER TABLE base_names DROP COLUMN namespace")
    for table in ("inspections", "damaged_files", "damaged_revisions"):
        database.execute(f"DROP TABLE {table}")
    database.execute("UPDATE alembic_version SET version_num = '0012'")


def back_to_0010(database: sqlite3.Connection) -> None:
    """Takes away what schemas 0011 and later added, but for the keys of workers and schedules."""
    back_to_0012(database)
    for table in ("epochs", "recall_claims"):
        database.execute(f"DROP TABLE {table}")
    for table in _FOLDED:
        database.execute(f"DROP INDEX ix_{table}_folded")
        database.execute(f"ALTER TABLE {table} DROP COLUMN folded")


def back_to_0004(database: sqlite3.Connection) -> None:
    """Takes away what schemas 0005 and later added."""
    back_to_0010(database)
    for table in _NEW_TABLES:
        database.execute(f"DROP TABLE {table}")
    for index in ("ix_uploads_open", "ix_uploads_coming"):
        database.execute(f"DROP INDEX {index}")
    database.execute("CREATE INDEX ix_uploads_tenant ON uploads (tenant)")
    database.execute("ALTER TABLE files DROP COLUMN unneeded_since")
    database.execute("DROP INDEX ix_versions_withdrawn")
    for column in ("generation", "reason", "successor", "at", "by"):
        database.execute(f"ALTER TABLE versions DROP COLUMN state_{column}")
