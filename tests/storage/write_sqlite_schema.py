"""Writes the script of a new SQLite database from the migrations. Run it after adding one."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine

from adaptry.storage.catalog import sqlite_schema
from adaptry.storage.catalog.migrate import upgrade

if __name__ == "__main__":
    with create_engine("sqlite://").begin() as connection:
        upgrade(connection)
        script = sqlite_schema.script_of(connection)
    Path(sqlite_schema.__file__).with_suffix(".sql").write_text(script, encoding="utf-8")
