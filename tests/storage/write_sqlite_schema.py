"""Writes the script of a new SQLite database from the migrations, and the texts of `statement_texts`. Run it
after adding a migration, and after changing a table or one of these statements.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine

from adaptry.storage.catalog import prepared_changes, sqlite_schema, statement_texts
from adaptry.storage.catalog.migrate import upgrade
from adaptry.storage.catalog.statement_compiler import write_tables, write_texts

if __name__ == "__main__":
    with create_engine("sqlite://").begin() as connection:
        upgrade(connection)
        script = sqlite_schema.script_of(connection)
    Path(sqlite_schema.__file__).with_suffix(".sql").write_text(script, encoding="utf-8")
    statement_texts.FILE.write_text(write_texts(), encoding="utf-8")
    prepared_changes.FILE.write_text(write_tables(), encoding="utf-8")
