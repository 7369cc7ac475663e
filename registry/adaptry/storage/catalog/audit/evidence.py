"""Evidence against events: every added value must be in a row, unchanged, and every withdrawal in both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlmodel import col, select

from adaptry.storage.catalog import evidence
from adaptry.storage.catalog.audit.adapter_events import AdapterHistory
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, MetricRow, VersionRow

_Change = tuple[int, datetime, str, str]
"""A version's number, when it changed, by whom, and a digest of what was added or withdrawn."""


def problems(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    query = (
        select(MetricRow, VersionRow.number)
        .join(VersionRow)
        .where(VersionRow.adapter_id == row.id, col(MetricRow.file_digest).is_not(None))
        .order_by(col(MetricRow.id))
    )
    rows = tx.exec(query).all()
    yield from _compare(row.name, "added", _added(rows), _recorded(history, "evidence.added", "content"))
    withdrawn = _recorded(history, "evidence.withdrawn", "ids", "reason")
    yield from _compare(row.name, "withdrawn", _withdrawn(rows), withdrawn)


def _added(rows: Sequence[tuple[MetricRow, int]]) -> Counter[_Change]:
    groups: Mapping[tuple[int, datetime, str, str | None], list[MetricRow]] = defaultdict(list)
    for one, number in rows:
        groups[number, one.logged_at, one.logged_by, one.file_digest].append(one)
    return Counter(
        (number, at, by, str(evidence.content_digest(group))) for (number, at, by, _), group in groups.items()
    )


def _withdrawn(rows: Sequence[tuple[MetricRow, int]]) -> Counter[_Change]:
    groups: Mapping[tuple[int, datetime, str, str, str | None], list[int]] = defaultdict(list)
    for one, number in rows:
        if one.withdrawn_at is not None:
            key = number, one.withdrawn_at, one.withdrawn_by or "", one.withdrawn_reason or ""
            groups[*key, one.file_digest].append(one.id or 0)
    return Counter(
        (number, at, by, f"{evidence.ids_digest(ids)} {reason}")
        for (number, at, by, reason, _), ids in groups.items()
    )


def _recorded(history: AdapterHistory, kind: str, *keys: str) -> Counter[_Change]:
    return Counter(
        (one.row.number or 0, one.row.at, one.row.by, " ".join(one.detail[key] for key in keys))
        for one in history.of_kinds(kind)
    )


def _compare(
    name: str, change: str, here: Counter[_Change], recorded: Counter[_Change]
) -> Iterator[IntegrityProblem]:
    for number, at, by, _ in sorted(recorded - here):
        yield IntegrityProblem(
            f"{name}@{number}",
            f"the evidence that {by} {'added' if change == 'added' else 'withdrew'} at {at:%Y-%m-%d %H:%M:%S}"
            " differs from its event",
        )
    for number, at, by, _ in sorted(here - recorded):
        yield IntegrityProblem(
            f"{name}@{number}",
            f"rows have evidence that {by} {'added' if change == 'added' else 'withdrew'} at"
            f" {at:%Y-%m-%d %H:%M:%S}, but no event agrees",
        )
