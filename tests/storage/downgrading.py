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
    "damaged_files",
    "damaged_revisions",
)


def back_to_0004(database: sqlite3.Connection) -> None:
    """Takes away what schemas 0005 and later added."""
    for table in _NEW_TABLES:
        database.execute(f"DROP TABLE {table}")
    for index in ("ix_uploads_open", "ix_uploads_coming"):
        database.execute(f"DROP INDEX {index}")
    database.execute("CREATE INDEX ix_uploads_tenant ON uploads (tenant)")
    database.execute("ALTER TABLE files DROP COLUMN unneeded_since")
    database.execute("DROP INDEX ix_versions_withdrawn")
    for column in ("generation", "reason", "successor", "at", "by"):
        database.execute(f"ALTER TABLE versions DROP COLUMN state_{column}")
