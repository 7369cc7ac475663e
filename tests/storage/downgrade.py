"""Downgrades a catalog to an older schema, for tests of migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

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


_OLD_TOKENS = """
CREATE TABLE tokens (
    id INTEGER NOT NULL, secret_sha256 VARCHAR NOT NULL, last_four VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL, role VARCHAR NOT NULL, namespaces VARCHAR NOT NULL, created_at DATETIME NOT NULL,
    expires_at DATETIME, revoked_at DATETIME,
    CONSTRAINT pk_tokens PRIMARY KEY (id), CONSTRAINT uq_tokens_secret_sha256 UNIQUE (secret_sha256)
)
"""


_EVIDENCE = (
    *(
        "base_id",
        "task",
        "task_version",
        "task_hash",
        "filter",
        "stderr",
        "n",
        "direction",
        "dataset",
        "step",
    ),
    *("harness", "harness_version", "harness_commit", "chat_template", "format", "file_digest"),
    *("samples_digest", "withdrawn_at", "withdrawn_by", "withdrawn_reason", "settings"),
)
_NEWER_TABLES = (
    "request_use", "weight_measurements",
    "refresh_tokens", "posted_files", "device_sign_ins", "provider_groups", "external_users",
    "policies", "approvals", "promotions", "webhook_deliveries", "webhooks",
    "used_id_tokens", "publishers", "issuers",
)  # fmt: skip


_RENAMED = (
    ("jobs", "tries", "attempts"),
    ("jobs", "fault", "error"),
    ("job_steps", "turn", "attempt"),
    ("job_steps", "what", "activity"),
    ("workers", "seen", "last_event"),
    ("workers", "troubles", "problems"),
    ("rollouts", "every", "interval"),
    ("pending_deletes", "going_since", "deleting_since"),
)


_OLD_KINDS = {
    "branch.created": "branch.made",
    "branch.deleted": "branch.dropped",
    "commit.created": "commit.made",
    "rollout.finished": "rollout.done",
    "tag.created": "tag.made",
    "tag.deleted": "tag.dropped",
}


def statements_back_to_0034() -> Iterator[str]:
    """Removes everything that schemas 0036 and 0037 (later updates and removals) added, and gives columns, a
    table and kinds of events their names from before schema 0035.
    """
    yield "DROP INDEX ix_adapters_removal"
    yield "DROP TABLE index_updates"
    yield "DROP INDEX ix_approvals_version"
    for table, old, new in _RENAMED:
        yield f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}"
    yield (
        "CREATE TABLE leaving (digest VARCHAR NOT NULL, since TIMESTAMP WITH TIME ZONE NOT NULL,"
        " going_since TIMESTAMP WITH TIME ZONE, CONSTRAINT pk_leaving PRIMARY KEY (digest))"
    )
    yield "INSERT INTO leaving SELECT digest, since, going_since FROM pending_deletes"
    yield "DROP TABLE pending_deletes"
    yield "CREATE INDEX ix_leaving_since ON leaving (since)"
    for new, old in _OLD_KINDS.items():
        for table in ("events", "webhook_deliveries"):
            yield f"UPDATE {table} SET kind = '{old}' WHERE kind = '{new}'"
        yield f"UPDATE webhooks SET kinds = replace(kinds, '\"{new}\"', '\"{old}\"')"
    for new, old in (("attempts", "tries"), ("error", "fault"), ("interval", "every")):
        yield f"UPDATE answers SET answer = replace(answer, '\"{new}\":', '\"{old}\":')"
    yield "UPDATE answers SET answer = replace(answer, '\"last_state_change\":', '\"standing\":')"
    yield "UPDATE alembic_version SET version_num = '0034'"


def _back_to_0027(database: sqlite3.Connection) -> None:
    """Removes everything that schemas 0028 (queries) and later added, except tables."""
    for statement in statements_back_to_0034():
        database.execute(statement)
    database.execute("DROP INDEX ix_principals_kind")
    columns = ("created_at", "rank", "alpha", "size", "downloads", "findings")
    for index in (
        *(f"ix_versions_{column}" for column in columns),
        *("ix_metric_summaries_newest", "ix_metric_values_measured", "ix_residents_loaded"),
    ):
        database.execute(f"DROP INDEX {index}")
    for column in ("rank", "size", "downloads"):
        database.execute(f"CREATE INDEX ix_versions_{column} ON versions ({column})")
    database.execute("CREATE INDEX ix_metric_summaries_newest ON metric_summaries (metric, newest)")
    database.execute("ALTER TABLE versions DROP COLUMN alpha")
    database.execute("ALTER TABLE workers DROP COLUMN base_id")
    database.execute("DELETE FROM postings WHERE term_id IN (SELECT id FROM terms WHERE field = 'finding')")
    database.execute("DELETE FROM terms WHERE field = 'finding'")


def back_to_0018(database: sqlite3.Connection) -> None:
    """Removes everything that schemas 0019 (the audit log), 0020 (quotas), 0021 (evidence), 0022 (lists of
    adapters) and later added.
    """
    _back_to_0027(database)
    database.execute("DROP INDEX ix_tokens_external_id")
    database.execute("ALTER TABLE tokens DROP COLUMN external_id")
    for table in _NEWER_TABLES:
        database.execute(f"DROP TABLE {table}")
    orders = ("updated", "downloads", "versions")
    for index in ("visible", *orders, *(f"namespace_{order}" for order in orders)):
        database.execute(f"DROP INDEX ix_adapters_{index}")
    database.execute("ALTER TABLE adapters DROP COLUMN version_count")
    for index in ("version", "task", "file", "logged"):
        database.execute(f"DROP INDEX ix_metric_values_{index}")
    for column in _EVIDENCE:
        database.execute(f"ALTER TABLE metric_values DROP COLUMN {column}")
    database.execute("CREATE INDEX ix_metric_values_version_id ON metric_values (version_id)")
    for table in ("audit_entries", "audit_state", "audit_checkpoints", "audit_subtrees"):
        database.execute(f"DROP TABLE {table}")
    for table in ("invitations", "quotas", "stored_use"):
        database.execute(f"DROP TABLE {table}")
    for index in ("ix_uploads_by", "ix_aliases_moved_at"):
        database.execute(f"DROP INDEX {index}")
    database.execute("ALTER TABLE files DROP COLUMN stored_by")
    database.execute("UPDATE alembic_version SET version_num = '0018'")


def back_to_0017(database: sqlite3.Connection) -> None:
    """Removes everything that schemas 0018 and later added, and every token; jobs and schedules are the
    embedded registry's.
    """
    back_to_0018(database)
    for table in (
        "tokens", "accountable_owners", "grants", "group_members", "principal_groups", "principals",
    ):  # fmt: skip
        database.execute(f"DROP TABLE {table}")
    database.execute(_OLD_TOKENS)
    for table in ("jobs", "job_schedules"):
        database.execute(f"ALTER TABLE {table} DROP COLUMN rights")
        database.execute(f"ALTER TABLE {table} ADD COLUMN by_role VARCHAR NOT NULL DEFAULT 'admin'")
        database.execute(f"ALTER TABLE {table} ADD COLUMN by_namespaces VARCHAR NOT NULL DEFAULT '[\"*\"]'")
    database.execute("UPDATE alembic_version SET version_num = '0017'")


def back_to_0012(database: sqlite3.Connection) -> None:
    """Removes everything that schemas 0013 and later added."""
    back_to_0017(database)
    database.execute("ALTER TABLE bases DROP COLUMN visibility")
    database.execute("DROP INDEX ix_base_names_namespace")
    database.execute("ALTER TABLE base_names DROP COLUMN namespace")
    for table in ("inspections", "damaged_files", "damaged_revisions"):
        database.execute(f"DROP TABLE {table}")
    for column in ("max_age", "gone_at", "gone_by", "gone_reason"):
        database.execute(f"ALTER TABLE workers DROP COLUMN {column}")
    database.execute("ALTER TABLE versions DROP COLUMN bound_base")
    database.execute("UPDATE alembic_version SET version_num = '0012'")


def back_to_0010(database: sqlite3.Connection) -> None:
    """Removes everything that schemas 0011 and later added, except the keys of workers and schedules."""
    back_to_0012(database)
    for table in ("epochs", "recall_claims"):
        database.execute(f"DROP TABLE {table}")
    for table in _FOLDED:
        database.execute(f"DROP INDEX ix_{table}_folded")
        database.execute(f"ALTER TABLE {table} DROP COLUMN folded")


def back_to_0004(database: sqlite3.Connection) -> None:
    """Removes everything that schemas 0005 and later added."""
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
