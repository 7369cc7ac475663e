"""Columns and indexes for queries: each version's alpha and findings, times, evidence, loaded versions.

Alpha and findings are read from the stored spec and report of each version, some thousands at a time.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_SORTED = ("created_at", "rank", "alpha", "size", "downloads", "findings")
_AT_ONCE = 2000
_IN_FORCE = sa.text("task IS NOT NULL AND withdrawn_at IS NULL")
_LOADED = sa.text("condition NOT IN ('failed', 'unloaded')")


def upgrade() -> None:
    op.add_column("versions", sa.Column("alpha", sa.Float(), nullable=True))
    _derive(op.get_bind())
    for column in ("rank", "size", "downloads"):
        op.drop_index(f"ix_versions_{column}", "versions")
    for column in _SORTED:
        op.create_index(f"ix_versions_{column}", "versions", [column, "id"])
    op.drop_index("ix_metric_summaries_newest", "metric_summaries")
    op.create_index("ix_metric_summaries_newest", "metric_summaries", ["metric", "newest", "version_id"])
    op.create_index(
        "ix_metric_values_measured",
        "metric_values",
        ["task", "metric", "value", "version_id", "id"],
        sqlite_where=_IN_FORCE,
        postgresql_where=_IN_FORCE,
    )
    op.create_index(
        "ix_residents_loaded",
        "residents",
        ["version_id", "worker_id"],
        sqlite_where=_LOADED,
        postgresql_where=_LOADED,
    )


def _derive(connection: sa.Connection) -> None:
    terms: dict[str, int] = {}
    for rows in _details(connection):
        alphas = [
            {"key": key, "alpha": alpha} for key, spec, _ in rows if (alpha := _alpha(spec)) is not None
        ]
        if alphas:
            connection.execute(sa.text("UPDATE versions SET alpha = :alpha WHERE id = :key"), alphas)
        found = [(key, code) for key, _, report in rows for code in _codes(report)]
        for code in {code for _, code in found} - terms.keys():
            terms[code] = _term(connection, code)
        if found:
            connection.execute(
                sa.text("INSERT INTO postings (term_id, version_id) VALUES (:term, :key)"),
                [{"term": terms[code], "key": key} for key, code in found],
            )


def _details(connection: sa.Connection) -> Iterator[Sequence[Any]]:
    """All specs and reports. (`Any`: rows.)"""
    last = 0
    query = sa.text(
        "SELECT version_id, spec, report FROM version_details WHERE version_id > :last"
        " ORDER BY version_id LIMIT :count"
    )
    while rows := connection.execute(query, {"last": last, "count": _AT_ONCE}).all():
        yield rows
        last = rows[-1].version_id


def _term(connection: sa.Connection, code: str) -> int:
    connection.execute(sa.text("INSERT INTO terms (field, text) VALUES ('finding', :code)"), {"code": code})
    query = sa.text("SELECT id FROM terms WHERE field = 'finding' AND text = :code")
    return int(connection.execute(query, {"code": code}).scalar_one())


def _alpha(spec: bytes) -> float | None:
    modules = _unpacked(spec).get("modules", ())
    return max((float(one["alpha"]) for one in modules if one.get("rank") and one.get("alpha")), default=None)


def _codes(report: bytes) -> list[str]:
    return list(dict.fromkeys(str(one["code"]) for one in _unpacked(report).get("findings", ())))


def _unpacked(data: bytes) -> dict[str, Any]:
    """Empty for damaged data, which `adaptry verify` reports. (`Any`: JSON.)"""
    try:
        document = json.loads(zlib.decompress(data))
    except (ValueError, zlib.error):
        return {}
    return document if isinstance(document, dict) else {}
