"""Epochs: each must follow from the previous one, and begin with an event. Generations of older events are
compared after adding the raises since.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import field
from datetime import datetime
from itertools import pairwise

from sqlmodel import col, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.audit.problem import IntegrityProblem, compare_values
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.encoding import decode_map
from adaptry.storage.catalog.rows import EpochRow, EventRow, RecallClaimRow

RESTORED = "registry.restored"


@dataclass(frozen=True, slots=True)
class Timeline:
    """The event numbers at which epochs begin, and their floors; `moments` are the times of the restores."""

    starts: Sequence[int] = ()
    floors: Sequence[int] = (0,)
    moments: frozenset[datetime] = field(default_factory=frozenset)

    @property
    def floor(self) -> int:
        """All current generations are above it."""
        return self.floors[-1]

    @property
    def is_restored(self) -> bool:
        return len(self.floors) > 1

    def rise_since(self, seq: int) -> int:
        """The amount by which restores raised generations after the event of that number."""
        return self.floor - self.floors[bisect_right(self.starts, seq)]


def timeline(tx: Transaction) -> Timeline:
    """The timeline in the rows. If rows and events disagree (see `problems`), the events take precedence."""
    rows = tx.exec(select(EpochRow).order_by(col(EpochRow.number))).all()
    found = tx.exec(
        select(EventRow.seq, EventRow.at).where(EventRow.kind == RESTORED).order_by(col(EventRow.seq))
    ).all()
    floors = [row.floor for row in rows][: len(found) + 1] or [0]
    starts = [seq or 0 for seq, _ in found][: len(floors) - 1]
    return Timeline(starts, floors, frozenset(at for _, at in found))


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        rows = tx.exec(select(EpochRow).order_by(col(EpochRow.number))).all()
        begun = tx.exec(select(EventRow).where(EventRow.kind == RESTORED).order_by(col(EventRow.seq))).all()
        claims = tx.exec(select(RecallClaimRow)).all()
        remembered = tx.exec(select(EventRow.detail).where(EventRow.kind == "recall.remembered")).all()
    if [row.number for row in rows] != list(range(1, len(rows) + 1)) or not rows:
        yield IntegrityProblem("epochs", "they are not numbered 1, 2, 3 … without a gap")
        return
    if len(rows) != len(begun) + 1:
        yield IntegrityProblem(
            "epochs", f"there are {len(rows)} rows, but {len(begun)} events that began one"
        )
    for before, row in pairwise(rows):
        where = f"epoch {row.number}"
        yield from compare_values(where, "its secret", row.secret, before.secret, "the epoch before")
        if row.floor <= before.floor:
            yield IntegrityProblem(
                where,
                f"its floor is {row.floor}, which is not above that of the epoch before, {before.floor}",
            )
    yield from compare_values("epoch 1", "its floor", rows[0].floor, 0, "the rule for a new registry")
    if len({row.id for row in rows}) != len(rows):
        yield IntegrityProblem("epochs", "two of them have the same id")
    for row, event in zip(rows[1:], begun, strict=False):
        where = f"epoch {row.number}"
        yield from compare_values(where, "its id", row.id, decode_map(event.detail).get("epoch"), "its event")
        yield from compare_values(where, "its start time", row.began_at, event.at, "its event")
    yield from _claims(claims, list(map(decode_map, remembered)), rows)


def _claims(
    claims: Sequence[RecallClaimRow],
    remembered: Sequence[dict[str, str]],
    rows: Sequence[EpochRow],
) -> Iterator[IntegrityProblem]:
    """Recalls missing from a restored backup, each with a worker's event, or from a replaced catalog."""
    events = {
        (one["adapter"], one["digest"].removeprefix("sha256:")): (one["was"], f"worker {one['worker']}")
        for one in remembered
    }
    for claim in claims:
        where = f"recall claim {claim.name}@{claim.digest[:12]}"
        known = events.get((claim.name, claim.digest))
        if known is not None:
            yield from compare_values(
                where, "its state and source", (claim.state, claim.source), known, "its event"
            )
        elif claim.source != "the replaced catalog":
            yield IntegrityProblem(where, "the event of a worker that reported it is missing")
        elif claim.at not in {row.began_at for row in rows[1:]}:
            yield IntegrityProblem(where, "its time is not the start of any epoch")
    for name, digest in sorted(events.keys() - {(claim.name, claim.digest) for claim in claims}):
        yield IntegrityProblem(
            f"recall claim {name}@{digest[:12]}", "it has an event, but its row is missing"
        )
