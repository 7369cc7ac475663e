"""Reads the catalog that a restore replaces: numbers, generations, events, and withdrawn versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import field
from pathlib import Path

from sqlalchemy import func
from sqlmodel import col, select

from adaptry.core.errors import AdaptryError
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import AdapterRow, AliasRow, EventRow, RolloutRow, VersionRow
from adaptry.storage.catalog.sqlite import copy


@dataclass(frozen=True, slots=True)
class ReplacedCatalog:
    """`numbers`: each adapter's next; `generation`, `event`: highest; `recalls`: by adapter and digest."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0
    event: int = 0
    recalls: Mapping[tuple[str, str], str] = field(default_factory=dict)


def read_replaced_catalog(catalog: Path, work: Path) -> ReplacedCatalog | None:
    """The values of a catalog, read from a copy in the folder `work`; None if it cannot be read."""
    try:
        copy(catalog, work / "replaced.sqlite")
        with closing(Catalog.open(work / "replaced.sqlite")) as opened, opened.read() as tx:
            numbers = tx.exec(select(AdapterRow.name, AdapterRow.next_number)).all()
            withdrawn = tx.exec(
                select(AdapterRow.name, VersionRow.digest, VersionRow.state)
                .join(VersionRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
                .where(col(VersionRow.state).in_(WITHDRAWN))
            ).all()
            highest = [
                tx.exec(select(func.max(column))).one() or 0
                for column in (AliasRow.generation, VersionRow.state_generation, RolloutRow.generation)
            ]
            return ReplacedCatalog(
                numbers=dict(numbers),
                generation=max(highest),
                event=tx.exec(select(func.max(EventRow.seq))).one() or 0,
                recalls={(name, digest): state for name, digest, state in withdrawn},
            )
    except (AdaptryError, OSError, sqlite3.Error):
        return None
