"""Words of tags are searchable like descriptions; keys of the fastest-growing tables may pass 2³¹."""

import json
import re

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TERMS = sa.table("terms", sa.column("id"), sa.column("field"), sa.column("text"))
_WORD = re.compile(r"[^\W_]+")
_GROWING = (("events", "seq"), ("metric_values", "id"))


def upgrade() -> None:
    connection = op.get_bind()
    tagged = connection.execute(sa.text("SELECT id, tags FROM adapters WHERE tags <> '[]'")).all()
    for adapter, tags in tagged:
        for word in dict.fromkeys(_WORD.findall(" ".join(json.loads(tags)).casefold())):
            _add(connection, adapter, _key(connection, word))
    if connection.dialect.name == "postgresql":  # SQLite's numbers are as large already
        for table, column in _GROWING:
            op.alter_column(table, column, type_=sa.BigInteger())
            connection.execute(sa.text(f"ALTER SEQUENCE {table}_{column}_seq AS bigint"))


def _key(connection: sa.Connection, word: str) -> int:
    known = sa.select(_TERMS.c.id).where(_TERMS.c.field == "word", _TERMS.c.text == word)
    found = connection.execute(known).scalar()
    if found is None:
        connection.execute(sa.insert(_TERMS).values(field="word", text=word))
        found = connection.execute(known).scalar_one()
    return int(found)


def _add(connection: sa.Connection, adapter: int, term: int) -> None:
    """To those of its versions that do not have the word from the name or the description."""
    connection.execute(
        sa.text(
            "INSERT INTO postings (term_id, version_id) SELECT :term, id FROM versions"
            " WHERE adapter_id = :adapter AND NOT EXISTS"
            " (SELECT 1 FROM postings WHERE term_id = :term AND version_id = versions.id)"
        ),
        {"term": term, "adapter": adapter},
    )
