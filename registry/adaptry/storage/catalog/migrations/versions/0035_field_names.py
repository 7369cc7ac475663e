"""Columns, a table and kinds of events get the field's names; answers that are kept for a day follow."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("jobs", "tries", "attempts"),
    ("jobs", "fault", "error"),
    ("job_steps", "turn", "attempt"),
    ("job_steps", "what", "activity"),
    ("workers", "seen", "last_event"),
    ("workers", "troubles", "problems"),
    ("rollouts", "every", "interval"),
)
_KINDS = {
    "branch.made": "branch.created",
    "branch.dropped": "branch.deleted",
    "commit.made": "commit.created",
    "rollout.done": "rollout.finished",
    "tag.dropped": "tag.deleted",
    "tag.made": "tag.created",
}
_FIELDS = {
    "tries": "attempts",
    "fault": "error",
    "every": "interval",
    "standing": "last_state_change",
}


def upgrade() -> None:
    connection = op.get_bind()
    _rename_pending_deletes()
    for table, old, new in _COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    _rename_kinds(connection)
    _rename_answers(connection)


def _rename_pending_deletes() -> None:
    """Copies the few rows: SQLite would keep the former names of constraints."""
    op.create_table(
        "pending_deletes",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleting_since", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_pending_deletes"),
    )
    op.execute("INSERT INTO pending_deletes SELECT digest, since, going_since FROM leaving")
    op.drop_table("leaving")
    op.create_index("ix_pending_deletes_since", "pending_deletes", ["since"])


def _rename_kinds(connection: sa.Connection) -> None:
    for table in ("events", "webhook_deliveries"):
        query = sa.text(f"UPDATE {table} SET kind = :new WHERE kind = :old")
        connection.execute(query, [{"old": old, "new": new} for old, new in _KINDS.items()])
    for id_, kinds in connection.execute(sa.text("SELECT id, kinds FROM webhooks")).all():
        renamed = json.dumps([_KINDS.get(kind, kind) for kind in json.loads(kinds)])
        if renamed != kinds:
            query = sa.text("UPDATE webhooks SET kinds = :kinds WHERE id = :id")
            connection.execute(query, {"kinds": renamed, "id": id_})


def _rename_answers(connection: sa.Connection) -> None:
    """Answers to requests with an idempotency key: jobs, rollouts, and pushed versions."""
    for identity, key, text in connection.execute(sa.text("SELECT identity, key, answer FROM answers")).all():
        answer = json.loads(text)
        if isinstance(answer, dict):
            query = sa.text("UPDATE answers SET answer = :answer WHERE identity = :identity AND key = :key")
            renamed = json.dumps(_with_new_fields(answer))
            connection.execute(query, {"answer": renamed, "identity": identity, "key": key})


def _with_new_fields(answer: dict[str, Any]) -> dict[str, Any]:
    """The object and its version with renamed fields. (`Any`: JSON.)"""
    renamed = {_FIELDS.get(name, name): value for name, value in answer.items()}
    if isinstance(version := renamed.get("version"), dict):
        renamed["version"] = _with_new_fields(version)
    return renamed
