"""An adapter's history from its events, since its creation: an audit compares it with the adapter's rows.

One key may have events of several adapters: of one that was deleted and created again, or of one whose name
another adapter took. A history covers only the current adapter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property

from sqlmodel import col, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.audit.epochs import Timeline
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import decode_map
from adaptry.storage.catalog.rows import EventRow


@dataclass(frozen=True)
class AuditedEvent:
    """An event with its parsed detail. `rise` is the amount by which restores have raised generations since
    the event.
    """

    row: EventRow
    detail: Mapping[str, str]
    rise: int

    @property
    def kind(self) -> str:
        return self.row.kind

    @property
    def seq(self) -> int:
        assert self.row.seq is not None
        return self.row.seq

    @property
    def generation(self) -> int:
        """The event's generation, converted to the current epoch."""
        return int(self.detail["generation"]) + self.rise


@dataclass(frozen=True)
class AdapterHistory:
    """The events of the current adapter, oldest first, and all events ever recorded under its key.

    `timeline` has the epochs of the registry.
    """

    events: Sequence[AuditedEvent]
    every: Sequence[AuditedEvent]
    timeline: Timeline
    by_number: Mapping[int, list[AuditedEvent]] = field(default_factory=lambda: defaultdict(list))

    @cached_property
    def pushed(self) -> Mapping[int, AuditedEvent]:
        """The push event of each version, by number."""
        return {one.row.number: one for one in self.of_kinds("version.pushed") if one.row.number is not None}

    def of_kinds(self, *kinds: str) -> Iterator[AuditedEvent]:
        return (one for one in self.events if one.kind in kinds)

    @property
    def highest_number(self) -> int:
        """The highest number that any version under the key ever had."""
        numbers = (one.row.number or 0 for one in self.every if one.kind == "version.pushed")
        return max(numbers, default=0)


def read_history(tx: Transaction, key: int, name: str, timeline: Timeline) -> AdapterHistory:
    """The creation event of the adapter that has this name now."""
    query = select(EventRow).where(EventRow.adapter_id == key).order_by(col(EventRow.seq))
    every = [
        AuditedEvent(row, decode_map(row.detail), timeline.rise_since(row.seq or 0)) for row in tx.exec(query)
    ]
    life: list[AuditedEvent] = []
    for one in reversed(every):
        if one.row.name != name:
            continue  # events of another adapter, whose name this one took
        life.append(one)
        if one.kind == "adapter.created":
            break
        if one.kind == "adapter.renamed":
            name = one.detail["was"]
    life.reverse()
    by_number: dict[int, list[AuditedEvent]] = defaultdict(list)
    for one in life:
        if one.row.number is not None:
            by_number[one.row.number].append(one)
    return AdapterHistory(life, every, timeline, by_number)


def numbers_before_renaming(tx: Transaction, key: int, name: str, seq: int) -> Iterator[int]:
    """The version numbers that an adapter had used when it lost `name`, by the event `seq`. The adapter whose
    name it took then, if there was one, has the same key, but its events have another name.
    """
    kinds = ("version.pushed", "adapter.renamed")
    query = select(EventRow).where(
        EventRow.adapter_id == key, col(EventRow.seq) < seq, col(EventRow.kind).in_(kinds)
    )
    names = {name}
    for row in tx.exec(query.order_by(col(EventRow.seq).desc())):
        if row.name not in names:
            continue
        if row.kind == "version.pushed":
            yield row.number or 0
        else:
            names.add(decode_map(row.detail)["was"])
