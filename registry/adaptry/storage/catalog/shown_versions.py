"""Versions as `VersionInfo`, made of rows, and the pages of an adapter's newest versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.core.states import State
from adaptry.registry import records
from adaptry.registry.records import BaseStatus, StateRecord, VersionInfo
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import ALIASES_AND_METRICS_OF_NEWEST, NEWEST_VERSIONS

if TYPE_CHECKING:
    from sqlalchemy import Row

    from adaptry.registry.records import Page
    from adaptry.storage.catalog.prepared import Reads

_CACHE_SIZE = 512


def about_newest(adapter_key: int) -> str:
    """Identifies the listing, newest first, in its cursors."""
    return f"versions {adapter_key}"


def newest_page(tx: Reads, adapter_key: int, cursor: str | None, limit: int) -> Page[VersionInfo]:
    """An adapter's versions, newest first. Raises `Invalid` for a cursor of another listing."""
    about = about_newest(adapter_key)
    last = cursors.decode_number(cursor, about)
    asked = {
        "adapter_key": adapter_key,
        "newest": cursors.INTEGER if last is None else last - 1,
        "count": limit + 1,
    }
    rows = run_select(tx, NEWEST_VERSIONS, asked)
    shown = rows[:limit]
    if not shown:
        return records.Page[VersionInfo](items=())
    numbers = {"adapter_key": adapter_key, "oldest": shown[-1].number, "newest": shown[0].number}
    beside = defaultdict(list)
    for row in run_select(tx, ALIASES_AND_METRICS_OF_NEWEST, numbers):
        beside[row.version_id].append(row)
    return records.Page[VersionInfo](
        items=tuple(version_of(row, beside[row.id]) for row in shown),
        next=cursors.encode(shown[-1].number, about) if len(rows) > limit else None,
    )


def version_of(row: Row[Any], beside: Iterable[Row[Any]]) -> VersionInfo:
    """The version of the columns `version_info.SHOWN`, with the aliases and metrics beside it."""
    texts = tuple((str(pair.text), pair.value) for pair in beside)
    made = _build(row._fields, row, texts)
    # A caller may change its dictionary of metrics.
    return made.model_copy(update={"metrics": dict(made.metrics)})


@lru_cache(maxsize=_CACHE_SIZE)
def _build(
    fields: tuple[str, ...], row: Row[Any], texts: tuple[tuple[str, float | None], ...]
) -> VersionInfo:
    """Makes a version from its row. Cached, since searches show the same versions repeatedly, and this takes
    most of their time. `fields` distinguishes rows of different statements.
    """
    return VersionInfo(
        name=AdapterName.parse(row.name),
        number=row.number,
        digest=Digest(row.digest),
        state=cast(State, row.state),
        last_state_change=_state_record(row),
        created_at=row.created_at,
        created_by=row.created_by,
        method=row.method,
        rank=row.rank,
        targets=decode_list(row.targets),
        traits=decode_list(row.traits),
        parameters=row.parameters,
        size=row.size,
        weights=Digest(row.weights),
        base_id=Digest(row.base_id) if row.base_id else None,
        base_name=row.base_name,
        base_status=cast(BaseStatus, row.base_status),
        aliases=tuple(text for text, value in texts if value is None),
        metrics={text: value for text, value in texts if value is not None},
        findings=row.findings,
        downloads=row.downloads,
        is_damaged=bool(row.is_damaged),
    )


def _state_record(row: Row[Any]) -> StateRecord | None:
    if row.state_generation == 0:
        return None
    return StateRecord(
        generation=row.state_generation,
        reason=row.state_reason,
        successor=row.state_successor,
        at=row.state_at,
        by=row.state_by,
    )
