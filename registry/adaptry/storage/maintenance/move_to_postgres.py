"""Moves a registry's rows from its folder to PostgreSQL; its files stay in place.

Until all rows are copied, the folder's own catalog is in use; then it becomes read-only, and the last step
writes one small file with the new address. If a move is interrupted before that step, another one completes
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from adaptry.core.errors import Conflict, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.blobs.factory import open_blobs
from adaptry.storage.catalog import database_copy, factory
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.maintenance.integrity import IntegrityProblem, verify


@dataclass(frozen=True, slots=True)
class CatalogMoveResult:
    """The number of rows of each table, and the problems that `verify` finds in them and their files."""

    rows: Mapping[str, int]
    problems: tuple[IntegrityProblem, ...]


def move_catalog(folder: Path, url: str, progress: Progress = no_progress) -> CatalogMoveResult:
    """Moves the catalog of the registry in `folder` to the empty PostgreSQL database at `url`.

    Every row is read back and compared before the commit, and every file that a row names must exist. Raises
    `NotFound` (no registry there), `Conflict` (moved before; the database has a catalog), `Invalid`,
    `Unavailable`.
    """
    place = factory.normalise_url(url)
    known = factory.address_in(folder)
    if known is not None:
        raise Conflict(f"the registry in {folder} already has its catalog in {known}")
    if not (folder / factory.FILE).is_file():
        raise NotFound(
            f"no registry in {folder}; to create a new one in PostgreSQL: adaptry serve --data {folder}"
            " --catalog URL"
        )
    with closing(Catalog.open(folder / factory.FILE)) as source, closing(Catalog(url)) as target:
        with source.write() as leaving, target.write() as arriving:
            if database_copy.is_retired(leaving, place):  # an earlier move stopped before its last step
                rows = database_copy.count(arriving)
            else:
                rows = database_copy.copy(leaving, arriving)
                database_copy.retire(leaving, place)
        factory.store_address(folder, url)
        problems = verify(target, open_blobs(folder), read_bytes=False, progress=progress)
    return CatalogMoveResult(rows, problems)
