"""Events alone: numbered without gaps, of a known kind, about the adapter that they name."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select as select_columns
from sqlmodel import func

from adaptry.registry.event_kinds import OF_ADAPTERS, OF_NO_ADAPTER
from adaptry.storage.catalog.audit.epochs import RESTORED
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import EventRow
from adaptry.storage.catalog.version_info import table_of

_OF_VERSIONS = frozenset(
    kind
    for kind in OF_ADAPTERS
    if kind.partition(".")[0] in ("version", "metrics", "evidence", "alias", "rollout")
)


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        table = table_of(EventRow).c
        rows = tx.execute(select_columns(table.seq, table.kind, table.adapter_id, table.name, table.number))
        for seq, kind, adapter, name, number in rows:
            where = f"event {seq}"
            if kind not in OF_ADAPTERS | OF_NO_ADAPTER:
                yield IntegrityProblem(where, f"unknown event kind {kind[:80]!a}")
            elif (kind in OF_ADAPTERS) != (adapter is not None) or (adapter is None) != (name is None):
                yield IntegrityProblem(
                    where, f"{kind} must {'not ' if adapter is not None else ''}name an adapter"
                )
            elif kind in _OF_VERSIONS and number is None:
                yield IntegrityProblem(where, f"{kind} must have a version number")
            elif number is not None and kind not in _OF_VERSIONS and kind != "commit.created":
                yield IntegrityProblem(where, f"{kind} must have no version number, but has {number}")
        if tx.connection().dialect.name == "sqlite":  # PostgreSQL skips numbers of rolled-back transactions
            before = func.lag(table.seq, 1, 0).over(order_by=table.seq).label("before")
            numbered = select_columns(table.seq, table.kind, before).subquery()
            gaps = select_columns(numbered.c.seq, numbered.c.before).where(
                numbered.c.seq != numbered.c.before + 1, numbered.c.kind != RESTORED
            )
            for seq, last in tx.execute(gaps):
                yield IntegrityProblem(
                    "events", f"event {seq} follows event {last}: the events between them are missing"
                )
