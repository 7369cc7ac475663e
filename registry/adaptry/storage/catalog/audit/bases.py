"""Bases: each row against its record, whose digest is the id, and against its events and files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from sqlmodel import col, select

from adaptry.adapters.base_record import BaseRecord
from adaptry.registry.base_info import BaseInfo
from adaptry.storage.catalog import bases
from adaptry.storage.catalog.audit.problem import IntegrityProblem, compare_values, guard_problems
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.encoding import decode_map, decode_model
from adaptry.storage.catalog.rows import BaseFileRow, BaseNameRow, BaseRow, EventRow, FileRow


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        ids = tx.exec(select(BaseRow.id).order_by(BaseRow.id)).all()
        events = _read_base_events(tx)
    for id in ids:
        yield from guard_problems(f"base sha256:{id[:12]}", partial(_of_base, catalog, id, events.get(id)))
    for id in events.keys() - set(ids):
        yield IntegrityProblem(f"base sha256:{id[:12]}", "it has events, but its row is missing")


class _BaseEvents:
    """The events of one base."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.registered: EventRow | None = None
        self.stored_bytes: int | None = None
        self.visibilities: list[tuple[str, str]] = []
        """The visibility before and after each change."""


def _read_base_events(tx: Transaction) -> dict[str, _BaseEvents]:
    found: dict[str, _BaseEvents] = defaultdict(_BaseEvents)
    query = select(EventRow).where(col(EventRow.kind).like("base.%")).order_by(col(EventRow.seq))
    for row in tx.exec(query):
        detail = decode_map(row.detail)
        one = found[detail["id"].removeprefix("sha256:")]
        one.names |= set(detail["names"].split(", ")) if "names" in detail else set()
        if row.kind == "base.registered":
            one.registered = row
        if row.kind == "base.stored":
            one.stored_bytes = int(detail["bytes"])
        if row.kind == "base.edited":
            one.visibilities.append((detail["was"], detail["visibility"]))
    return found


def _of_base(catalog: Catalog, id: str, events: _BaseEvents | None) -> Iterator[IntegrityProblem]:
    where = f"base sha256:{id[:12]}"
    with catalog.read() as tx:
        row = tx.exec(select(BaseRow).where(BaseRow.id == id)).first()
        if row is None:
            return
        record = decode_model(BaseRecord, row.record)
        yield from compare_values(where, "its id", id, record.id.hex, "its record")
        if row.architecture != record.architecture.hex:
            yield IntegrityProblem(
                where, "its architecture differs from that of its record", "derived", f"base:{id}"
            )
        expected = BaseInfo.model_validate_json(bases.summary(record, row.created_at, row.created_by))
        if BaseInfo.model_validate_json(row.summary) != expected:
            yield IntegrityProblem(
                where, "its summary for listings differs from its row", "derived", f"base:{id}"
            )
        spaces = dict(
            tx.exec(select(BaseNameRow.name, BaseNameRow.namespace).where(BaseNameRow.base_id == id)).all()
        )
        files = tx.exec(select(BaseFileRow).where(BaseFileRow.base_id == id)).all()
        owned = dict(
            tx.exec(select(FileRow.digest, FileRow.size).where(FileRow.owner == f"sha256:{id}")).all()
        )
    for name, namespace in sorted(spaces.items()):
        if namespace != bases.namespace_of(name):
            reason = f"its namespace is {namespace!a}, but its name gives {bases.namespace_of(name)!a}"
            yield IntegrityProblem(f"{name}, a name of {where}", reason, "derived", f"base:{id}")
    for file in files:
        yield from compare_values(
            f"{file.path} of {where}", "its size", owned.get(file.digest), file.size, "the base's row"
        )
        if (known := record.file_hashes.get(file.path)) is not None:
            yield from compare_values(
                f"{file.path} of {where}", "its digest", file.digest, known.hex, "its record"
            )
    if files:
        yield from _layout(where, {file.path for file in files})
    if events is None or events.registered is None:
        yield IntegrityProblem(where, "the event of its registration is missing")
        return
    yield from compare_values(
        where, "its registration time", row.created_at, events.registered.at, "its event"
    )
    yield from compare_values(where, "its author", row.created_by, events.registered.by, "its event")
    yield from compare_values(where, "its names", sorted(spaces), sorted(events.names), "its events")
    yield from _visibility(where, row.visibility, events)
    if events.stored_bytes is not None or files:
        yield from compare_values(
            where, "the size of its files", sum(file.size for file in files), events.stored_bytes, "its event"
        )


def _visibility(where: str, visibility: str, events: _BaseEvents) -> Iterator[IntegrityProblem]:
    """Checks the visibility. Its first value is in no event: it is private, or internal for bases older than
    visibilities.
    """
    if not events.visibilities and visibility not in ("private", "internal"):
        yield IntegrityProblem(where, f"its visibility is {visibility}, but no event set it")
    known: str | None = None
    for was, now in events.visibilities:
        if known is not None:
            yield from compare_values(where, "its previous visibility", was, known, "the event before")
        known = now
    if known is not None:
        yield from compare_values(where, "its visibility", visibility, known, "the last event that set it")


def _layout(where: str, paths: set[str]) -> Iterator[IntegrityProblem]:
    """Checks that the file names are those of a checkpoint; their contents are checked when they are
    opened.
    """
    if "config.json" not in paths:
        yield IntegrityProblem(where, "config.json is not among its files")
    shards = {path for path in paths if path.endswith(".safetensors")}
    if "model.safetensors" not in shards and "model.safetensors.index.json" not in paths:
        yield IntegrityProblem(where, "neither model.safetensors nor an index of shards is among its files")
