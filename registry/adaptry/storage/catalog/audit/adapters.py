"""Audits an adapter's rows against its events, its manifests, and the data derived from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial

from sqlmodel import col, func, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.audit import commits, evidence, promotions, rollouts, search_index, versions
from adaptry.storage.catalog.audit.adapter_events import (
    AdapterHistory,
    AuditedEvent,
    numbers_before_renaming,
    read_history,
)
from adaptry.storage.catalog.audit.epochs import Timeline, timeline
from adaptry.storage.catalog.audit.problem import IntegrityProblem, compare_values, guard_problems
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.encoding import decode_list, decode_map
from adaptry.storage.catalog.metrics import is_logged
from adaptry.storage.catalog.rows import (
    AdapterRow,
    AliasRow,
    CommitRow,
    EventRow,
    GitRefRow,
    MetricRow,
    MetricSummaryRow,
    NamespaceRow,
    VersionRow,
)


@dataclass
class AuditContext:
    """Data that is read once for all adapters: epochs, and renames as (event number, adapter key, old name,
    new name).
    """

    timeline: Timeline = field(default_factory=Timeline)
    renamings: list[tuple[int, int, str, str]] = field(default_factory=list)

    def mentions(self, names: set[str]) -> bool:
        return any({was, to} & names for _, _, was, to in self.renamings)


def cross_adapter_problems(catalog: Catalog, shared: AuditContext) -> Iterator[IntegrityProblem]:
    """Problems across adapters. Fills `shared`."""
    with catalog.read() as tx:
        shared.timeline = timeline(tx)
        query = select(EventRow).where(EventRow.kind == "adapter.renamed").order_by(col(EventRow.seq))
        for row in tx.exec(query):
            detail = decode_map(row.detail)
            shared.renamings.append((row.seq or 0, row.adapter_id or 0, detail["was"], detail["to"]))
        used = set(tx.exec(select(AdapterRow.namespace).distinct()))
        known = set(tx.exec(select(NamespaceRow.name)))
    for name in sorted(used ^ known):
        reason = "it has adapters but no row" if name in used else "it has a row but never had an adapter"
        yield IntegrityProblem(f"namespace {name}", reason, "derived", "namespaces")


def problems(catalog: Catalog, key: int, shared: AuditContext) -> Iterator[IntegrityProblem]:
    """All problems of one adapter, read in one transaction."""
    with catalog.read() as tx:
        row = tx.get(AdapterRow, key)
        if row is None:
            return
        name, namespace = row.name, row.name.partition("/")[0]
        yield from compare_values(name, "its namespace", row.namespace, namespace, "its name")
        yield from guard_problems(name, partial(_version_count, tx, row))
        history = read_history(tx, key, name, shared.timeline)
        yield from guard_problems(name, partial(_numbering, tx, row, history, shared))
        yield from guard_problems(name, partial(_names_in_events, name, history))
        if row.deleted_at is not None:
            yield from guard_problems(name, partial(_tombstone_problems, tx, row, history, shared))
            return
        if row.moved_to is not None:
            yield IntegrityProblem(name, "it is marked as renamed, but still exists")
        yield from guard_problems(name, partial(_adapter_problems, tx, row, history))
        yield from guard_problems(name, partial(versions.problems, tx, row, history))
        yield from guard_problems(name, partial(commits.problems, tx, row, history))
        yield from guard_problems(name, partial(_aliases, tx, row, history))
        yield from guard_problems(name, partial(rollouts.problems, tx, row, history))
        yield from guard_problems(name, partial(_metrics, tx, row, history))
        yield from guard_problems(name, partial(evidence.problems, tx, row, history))
        yield from guard_problems(name, partial(promotions.problems, tx, row, history))
        yield from guard_problems(name, partial(search_index.problems, tx, row))


def _version_count(tx: Transaction, row: AdapterRow) -> Iterator[IntegrityProblem]:
    count = select(func.count()).select_from(VersionRow).where(VersionRow.adapter_id == row.id)
    for problem in compare_values(
        row.name, "its number of versions", row.version_count, tx.exec(count).one(), "its rows"
    ):
        yield IntegrityProblem(problem.where, problem.reason, "derived", f"version-count:{row.id}")


def _adapter_problems(
    tx: Transaction, row: AdapterRow, history: AdapterHistory
) -> Iterator[IntegrityProblem]:
    name = row.name
    if not history.events or history.events[0].kind != "adapter.created":
        yield IntegrityProblem(name, "the event of its creation is missing")
        return
    edits = list(history.of_kinds("adapter.created", "adapter.edited"))
    visibility = [one.detail["visibility"] for one in edits if "visibility" in one.detail]
    if visibility:
        yield from compare_values(
            name, "its visibility", row.visibility, visibility[-1], "the last event that set it"
        )
    described = [one.detail["description"] for one in edits if "description" in one.detail]
    if described:
        yield from compare_values(
            name, "its description", row.description, described[-1], "the last event that set it"
        )
    tagged = [one.detail["tags"] for one in edits if "tags" in one.detail]
    if tagged:
        tags = ", ".join(decode_list(row.tags))
        yield from compare_values(name, "its tags", tags, tagged[-1], "the last event that set it")
    yield from compare_values(
        name, "its creation time", row.created_at, history.events[0].row.at, "its event"
    )
    changes = list(history.of_kinds("adapter.created", "adapter.edited", "adapter.renamed", "version.pushed"))
    yield from compare_values(
        name, "the time of its last change", row.updated_at, changes[-1].row.at, "its last event"
    )
    taken = select(func.coalesce(func.sum(col(VersionRow.downloads)), 0)).where(
        VersionRow.adapter_id == row.id
    )
    yield from compare_values(
        name, "its downloads", row.downloads, tx.exec(taken).one(), "the sum over its versions"
    )


def _numbering(
    tx: Transaction, row: AdapterRow, history: AdapterHistory, shared: AuditContext
) -> Iterator[IntegrityProblem]:
    after = history.highest_number + 1
    if row.next_number < after:
        yield IntegrityProblem(
            row.name, f"its next version number is {row.next_number}, but version {after - 1} already existed"
        )
    if shared.timeline.is_restored:  # restores skip numbers
        return
    left = [one for one in shared.renamings if one[2] == row.name]
    if len(left) == 1 and row.moved_to == left[0][1] and not history.every:
        seq, key, name, _ = left[0]
        after = 1 + max(numbers_before_renaming(tx, key, name, seq), default=0)
        yield from compare_values(
            row.name,
            "its next version number",
            row.next_number,
            after,
            "the adapter's row under its new name",
        )
        return
    names = {one.row.name for one in history.every if one.row.name} | {row.name}
    # A name that another adapter had before continues that adapter's numbers.
    if row.next_number > after and not shared.mentions(names):
        yield IntegrityProblem(
            row.name, f"its next version number is {row.next_number}, but its events give {after}"
        )


def _names_in_events(name: str, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    """Checks that an event has a name of its adapter, or of an adapter whose name it took."""
    known = {name}
    for one in history.every:
        if one.kind in ("adapter.created", "adapter.renamed"):
            known |= {one.row.name or "", one.detail.get("was", ""), one.detail.get("to", "")}
    for one in history.every:
        if one.row.name not in known:
            yield IntegrityProblem(
                f"event {one.seq}", f"it names {one.row.name}, but its adapter never had that name"
            )


def _tombstone_problems(
    tx: Transaction, row: AdapterRow, history: AdapterHistory, shared: AuditContext
) -> Iterator[IntegrityProblem]:
    """Problems of a tombstone, which stands for a deleted adapter or for the old name of a renamed one."""
    being_removed = (VersionRow, CommitRow) if row.version_count else ()  # they are counted: `_version_count`
    for table, what in ((VersionRow, "versions"), (CommitRow, "commits"), (GitRefRow, "branches")):
        if (
            table not in being_removed
            and tx.exec(select(func.count()).select_from(table).where(table.adapter_id == row.id)).one()
        ):
            yield IntegrityProblem(row.name, f"it is deleted, but still has {what}")
    pointing = select(AliasRow.alias).where(
        AliasRow.adapter_id == row.id, col(AliasRow.version_id).is_not(None)
    )
    for alias in tx.exec(pointing):
        yield IntegrityProblem(
            f"{row.name}@{alias}", "its adapter is deleted, but it still points at a version"
        )
    left = [one for one in shared.renamings if one[2] == row.name]
    deleted = [one for one in history.events if one.kind == "adapter.deleted"]
    moment = deleted[-1].row.at if deleted else None
    if moment is None and left:
        moment = tx.exec(select(EventRow.at).where(EventRow.seq == left[-1][0])).one()
    if moment is None and not history.every and row.deleted_at in shared.timeline.moments:
        moment = (
            row.deleted_at
        )  # a name from the catalog that a restore replaced, kept to reserve its numbers
    if moment is None:
        yield IntegrityProblem(row.name, "it is deleted, but the event of its deletion is missing")
        return
    yield from compare_values(row.name, "the time of its deletion", row.deleted_at, moment, "its event")
    yield from compare_values(row.name, "the time of its last change", row.updated_at, moment, "its event")
    yield from compare_values(
        row.name, "its visibility", row.visibility, "private", "the rule for deleted adapters"
    )
    created = history.events[0].row.at if deleted else None
    target = tx.get(AdapterRow, row.moved_to) if row.moved_to is not None else None
    if target is not None and target.deleted_at is None:
        created = target.created_at
    if created is not None:
        yield from compare_values(row.name, "its creation time", row.created_at, created, "its event")
    if row.moved_to is not None and (not left or left[-1][1] != row.moved_to):
        yield IntegrityProblem(row.name, "its new name differs from the one in the event of the renaming")
    elif row.moved_to is None and left and not deleted and _still_exists(tx, left[-1]):
        yield IntegrityProblem(row.name, "the adapter that it was renamed to is missing")


def _still_exists(tx: Transaction, renaming: tuple[int, int, str, str]) -> bool:
    """Whether the renamed adapter has not been deleted since; a deletion also drops its former names."""
    seq, key, _, _ = renaming
    ended = select(EventRow.seq).where(
        EventRow.adapter_id == key, EventRow.kind == "adapter.deleted", col(EventRow.seq) > seq
    )
    adapter = tx.get(AdapterRow, key)
    return adapter is not None and adapter.deleted_at is None and tx.exec(ended.limit(1)).first() is None


def _aliases(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    rows = {one.alias: one for one in tx.exec(select(AliasRow).where(AliasRow.adapter_id == row.id))}
    found = tx.exec(
        select(VersionRow.id, VersionRow.number, VersionRow.digest).where(VersionRow.adapter_id == row.id)
    )
    by_key = {key: (number, f"sha256:{digest}") for key, number, digest in found}
    moves: dict[str, list[AuditedEvent]] = {}
    for one in history.of_kinds("alias.moved", "alias.removed"):
        moves.setdefault(one.detail["alias"], []).append(one)
    for alias, alias_row in rows.items():
        if alias not in moves and alias_row.version_id is not None:
            yield IntegrityProblem(f"{row.name}@{alias}", "the event that set it is missing")
    for alias, happened in moves.items():
        where = f"{row.name}@{alias}"
        yield from _moves(where, happened, dict(by_key.values()), history.timeline.floor)
        if alias not in rows:
            yield IntegrityProblem(where, "it has events, but its row is missing")
            continue
        last, now = happened[-1], rows[alias]
        target = (last.row.number, last.detail.get("to")) if last.kind == "alias.moved" else None
        here = by_key.get(now.version_id) if now.version_id is not None else None
        yield from compare_values(where, "its version", here, target, "its last event")
        yield from compare_values(where, "its generation", now.generation, last.generation, "its last event")
        yield from compare_values(
            where, "the time of its last move", now.moved_at, last.row.at, "its last event"
        )
        yield from compare_values(
            where, "the author of its last move", now.moved_by, last.row.by, "its last event"
        )


def _moves(
    where: str, happened: Sequence[AuditedEvent], versions_: dict[int, str], floor: int
) -> Iterator[IntegrityProblem]:
    """Checks that each move starts at the target of the previous one, in the next generation, and that the
    first generation is above the floor.
    """
    at: str | None = None
    number: str | None = None
    generation: int | None = None
    for one in happened:
        what, now = f"event {one.seq} of {where}", one.generation
        yield from compare_values(what, "its previous digest", one.detail.get("was"), at, "the event before")
        if one.kind == "alias.moved":
            yield from compare_values(
                what, "its previous version", one.detail.get("was_number"), number, "the event before"
            )
            if generation is not None:
                yield from compare_values(what, "its generation", now, generation + 1, "the event before")
            elif now <= floor:
                yield IntegrityProblem(
                    what, f"its generation is {now}, but generations of this epoch are above {floor}"
                )
            at, number = one.detail["to"], str(one.row.number)
            yield from compare_values(
                what, "its target digest", at, versions_.get(one.row.number or 0), "the version"
            )
        else:
            yield from compare_values(what, "its generation", now, generation, "the event before")
            yield from compare_values(what, "its number", str(one.row.number), number, "the event before")
            at = number = None
        generation = now


def _metrics(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    """Checks that every logged value is in an event and in a row, and that the search summary follows from
    the rows.
    """
    numbers = dict(
        tx.exec(select(VersionRow.id, VersionRow.number).where(VersionRow.adapter_id == row.id)).all()
    )
    query = select(MetricRow).join(VersionRow).where(VersionRow.adapter_id == row.id, is_logged())
    values = tx.exec(query.order_by(col(MetricRow.id))).all()
    logged = Counter(
        (one.row.number or 0, metric, value, one.row.at, one.row.by)
        for one in history.of_kinds("metrics.logged")
        for metric, value in one.detail.items()
    )
    here = Counter(
        (numbers[one.version_id], one.metric, str(one.value), one.logged_at, one.logged_by) for one in values
    )
    expected = {(number, metric, float(value), at, by) for number, metric, value, at, by in logged - here}
    surplus = {(number, metric, float(value), at, by) for number, metric, value, at, by in here - logged}
    for number, metric, value, _, _ in sorted(expected - surplus, key=str):
        yield IntegrityProblem(
            f"{row.name}@{number}", f"an event logged {metric} = {value}, but the row is missing"
        )
    for number, metric, value, _, _ in sorted(surplus - expected, key=str):
        yield IntegrityProblem(
            f"{row.name}@{number}", f"a row has {metric} = {value}, but the event is missing"
        )
    by_metric: dict[tuple[int, str], list[float]] = {}
    for one in values:
        by_metric.setdefault((one.version_id, one.metric), []).append(one.value)
    summaries = select(MetricSummaryRow).join(VersionRow).where(VersionRow.adapter_id == row.id)
    known = {
        (one.version_id, one.metric): (one.newest, one.highest, one.lowest) for one in tx.exec(summaries)
    }
    right = {pair: (each[-1], max(each), min(each)) for pair, each in by_metric.items()}
    for pair in sorted(known.keys() | right.keys()):
        if known.get(pair) != right.get(pair):
            yield IntegrityProblem(
                f"{row.name}@{numbers[pair[0]]}",
                f"the search summary of {pair[1]} differs from the logged values",
                "derived",
                f"metrics:{pair[0]}",
            )
