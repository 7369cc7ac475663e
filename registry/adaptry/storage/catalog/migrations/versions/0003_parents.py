"""Adds versions' parents to the search index, for existing versions too."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TERMS = sa.table("terms", sa.column("id"), sa.column("field"), sa.column("text"))
_POSTINGS = sa.table("postings", sa.column("term_id"), sa.column("version_id"))


def upgrade() -> None:
    connection = op.get_bind()
    derived = connection.execute(
        sa.text(
            "SELECT versions.id, revisions.manifest FROM versions"
            " JOIN revisions ON revisions.digest = versions.digest"
        )
    )
    keys: dict[str, int] = {}
    for version, manifest in derived:
        for parent in dict.fromkeys(json.loads(manifest).get("parents", ())):
            if parent not in keys:
                connection.execute(sa.insert(_TERMS).values(field="parent", text=parent))
                term = sa.select(_TERMS.c.id).where(_TERMS.c.field == "parent", _TERMS.c.text == parent)
                keys[parent] = connection.execute(term).scalar_one()
            connection.execute(sa.insert(_POSTINGS).values(term_id=keys[parent], version_id=version))
