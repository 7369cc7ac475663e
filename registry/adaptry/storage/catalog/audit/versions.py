"""Versions: numbers, digests and states against events, and derived data against manifests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sqlmodel import col, select

from adaptry.adapters.formats import detect_format
from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.report import CheckReport
from adaptry.storage.catalog.audit.adapter_events import AdapterHistory, AuditedEvent
from adaptry.storage.catalog.audit.problem import UNREADABLE, IntegrityProblem, compare_values, guard_problems
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import decode_model, encode_list
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.rows import (
    AdapterRow,
    BaseNameRow,
    BaseRow,
    RevisionRow,
    VersionDetailRow,
    VersionRow,
    WeightsDigestRow,
)

_STATES = (
    "version.deprecated",
    "version.yanked",
    "version.quarantined",
    "version.revoked",
    "version.restored",
)


def problems(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    query = (
        select(VersionRow, VersionDetailRow, RevisionRow.manifest)
        .join(VersionDetailRow, col(VersionDetailRow.version_id) == col(VersionRow.id), isouter=True)
        .join(RevisionRow, col(RevisionRow.digest) == col(VersionRow.digest), isouter=True)
        .where(VersionRow.adapter_id == row.id)
        .order_by(col(VersionRow.number))
    )
    numbers = set()
    for version, detail, manifest in tx.exec(query).all():
        numbers.add(version.number)
        where = f"{row.name}@{version.number}"
        yield from guard_problems(where, partial(_against_events, where, version, history))
        yield from guard_problems(where, partial(_state, where, version, history))
        if detail is None:
            yield IntegrityProblem(
                where, "its stored spec and check report are missing", "derived", f"version:{version.id}"
            )
        else:
            yield from guard_problems(where, partial(_derived, tx, where, version, detail))
            pushed = history.pushed.get(version.number)
            if pushed is not None:
                yield from compare_values(
                    where, "its force reason", detail.forced, pushed.detail.get("forced"), "its event"
                )
        if manifest is not None:
            yield from _of_files(tx, where, version, manifest)
    for number in sorted(history.pushed.keys() - numbers):
        yield IntegrityProblem(f"{row.name}@{number}", "it has a push event, but its row is missing")


def _against_events(where: str, version: VersionRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    pushed = history.pushed.get(version.number)
    if pushed is None:
        yield IntegrityProblem(where, "its push event is missing")
        return
    yield from compare_values(
        where, "its digest", f"sha256:{version.digest}", pushed.detail["digest"], "its event"
    )
    yield from compare_values(where, "its push time", version.created_at, pushed.row.at, "its event")
    yield from compare_values(where, "its pusher", version.created_by, pushed.row.by, "its event")
    checked = [one for one in history.by_number[version.number] if "base_status" in one.detail]
    expected = checked[-1].detail["base_status"]
    yield from compare_values(
        where, "its base status", version.base_status, expected, "the last event that set it"
    )


def _state(where: str, version: VersionRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    changes = [one for one in history.by_number[version.number] if one.kind in _STATES]
    state = "active"
    for generation, one in enumerate(changes, 1):
        what = f"event {one.seq} of {where}"
        expected_generation = history.timeline.floor + generation
        yield from compare_values(
            what, "its generation", one.generation, expected_generation, "the order of events"
        )
        yield from compare_values(
            what, "the previous state", one.detail.get("was"), state, "the event before"
        )
        yield from compare_values(
            what, "its digest", one.detail.get("digest"), f"sha256:{version.digest}", "the version"
        )
        state = _state_after(one)
    last = changes[-1] if changes else None
    expected = (
        (
            state,
            history.timeline.floor + len(changes),
            last.detail.get("reason"),
            last.detail.get("successor"),
            last.row.at,
            last.row.by,
        )
        if last
        else ("active", 0, None, None, None, None)
    )
    found = (
        version.state,
        version.state_generation,
        version.state_reason,
        version.state_successor,
        version.state_at,
        version.state_by,
    )
    names = (
        "its state",
        "the generation of its state",
        "the reason of its state",
        "its successor",
        "the time of its state change",
        "the author of its state change",
    )
    for name, here, there in zip(names, found, expected, strict=True):
        yield from compare_values(where, name, here, there, "its events")


def _state_after(one: AuditedEvent) -> str:
    state = one.kind.partition(".")[2]
    return "active" if state == "restored" else state


def _derived(
    tx: Transaction, where: str, version: VersionRow, detail: VersionDetailRow
) -> Iterator[IntegrityProblem]:
    """Columns that repeat values of the spec and the report."""
    key = f"version:{version.id}"
    try:
        spec, report = decode_model(Spec, detail.spec), decode_model(CheckReport, detail.report)
    except UNREADABLE as error:  # damaged compressed JSON can raise many errors
        yield IntegrityProblem(
            where, f"its spec or report cannot be read: {str(error)[:200]}", "derived", key
        )
        return
    pairs = (
        ("its method", version.method, spec.method),
        ("its rank", version.rank, spec.rank),
        ("its alpha", version.alpha, spec.alpha),
        ("its modules", version.targets, encode_list(spec.targets)),
        ("its traits", version.traits, encode_list(spec.traits)),
        ("its parameters", version.parameters, spec.parameters),
        ("the number of its findings", version.findings, len(report.findings)),
    )
    for name, found, expected in pairs:
        if found != expected:
            yield IntegrityProblem(
                where, f"{name} is {found}, but its spec and report give {expected}", "derived", key
            )
    is_known = version.base_id is not None and bool(
        tx.exec(select(BaseRow.id).where(BaseRow.id == version.base_id)).first()
    )
    status = "verified" if is_known and not report.is_blocked else "declared"
    if version.base_id is None and version.base_name is None:
        status = "unknown"
    if version.base_status == "verified" and status != "verified":
        yield IntegrityProblem(
            where,
            "its base status is verified, but the base is missing or the check report has errors",
            "derived",
            key,
        )
    if (version.base_status == "unknown") != (status == "unknown"):
        yield IntegrityProblem(
            where,
            f"its base status is {version.base_status}, but its base name and id give {status}",
            "derived",
            key,
        )
    if is_known and version.base_name is not None:
        named = tx.get(BaseNameRow, version.base_name)
        if named is None or named.base_id != version.base_id:
            yield IntegrityProblem(where, "its base name is not a name of its base", "derived", key)


def _of_files(tx: Transaction, where: str, version: VersionRow, data: bytes) -> Iterator[IntegrityProblem]:
    try:
        manifest = stored_manifest(Digest(version.digest), data)
    except AdaptryError:  # already reported for the revision
        return
    key = f"version:{version.id}"
    if version.size != manifest.size:
        yield IntegrityProblem(
            where, f"its size is {version.size}, but its manifest gives {manifest.size}", "derived", key
        )
    claimed = manifest.base.id if manifest.base else None
    if claimed is not None and version.base_id != claimed.hex:
        yield IntegrityProblem(where, "its base differs from the one in its manifest", "derived", key)
    if version.bound_base is not None and version.base_id != version.bound_base:
        yield IntegrityProblem(where, "its base differs from the one that it is bound to", "derived", key)
    format = detect_format(entry.path for entry in manifest.files)
    entry = manifest.file(format.weights) if format else None
    weights_row = tx.get(WeightsDigestRow, entry.sha256.hex) if entry else None
    if weights_row is None or weights_row.weights_digest != version.weights:
        yield IntegrityProblem(
            where, "its weights digest differs from the one derived from its file", "derived", key
        )
