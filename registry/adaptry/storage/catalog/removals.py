"""Removes the versions and commits of deleted adapters, in short transactions.

A version has dozens of rows. If a deletion removed those of thousands of versions in its own transaction,
other writers would wait for seconds. So it only marks the adapter as deleted, which ends its name, aliases
and files; the versions follow (`continue_removal`). Until then, the adapter's `version_count` is the number
of versions left. What finds versions in other ways than by their adapter's name leaves these out, by the
adapter's `deleted_at` or `index_updates.removed_adapters`.
"""

from __future__ import annotations

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.dialect import HAS_INDEX_UPDATES
from adaptry.storage.catalog.lazy_modules import sa, tables

MOST_VERSIONS = 50
"""Maximum number of versions that one transaction removes. Most have about thirty rows."""
MOST_COMMITS = 1000
"""Maximum number of commits that one transaction removes."""


def begin_removal(tx: Transaction, adapter: int) -> None:
    """Removes the versions and commits of an adapter that is marked as deleted: now if they are few,
    otherwise after this transaction.
    """
    versions, adapters = tables.versions.c, tables.adapters
    count = sa.select(sa.func.count()).where(versions.adapter_id == adapter).scalar_subquery()
    tx.execute(adapters.update().where(adapters.c.id == adapter).values(version_count=count))
    if not continue_removal(tx, adapter):
        tx.info[HAS_INDEX_UPDATES] = True


def continue_removal(tx: Transaction, adapter: int) -> bool:
    """Removes some of the commits and versions of an adapter, if it is still deleted. Returns whether none
    are left.
    """
    adapters = tables.adapters
    is_deleted = sa.select(adapters.c.id).where(adapters.c.id == adapter, adapters.c.deleted_at.is_not(None))
    if tx.execute(is_deleted).first() is None:
        return True  # its name is in use again, so another process has removed the rest
    # Commits first: only versions are counted, so the removal is over when the last version is removed.
    if _remove(tx, tables.commits, adapter, MOST_COMMITS) > MOST_COMMITS:
        return False
    found = _remove(tx, tables.versions, adapter, MOST_VERSIONS)
    left = adapters.c.version_count - MOST_VERSIONS if found > MOST_VERSIONS else 0
    tx.execute(adapters.update().where(adapters.c.id == adapter).values(version_count=left))
    return found <= MOST_VERSIONS


def finish_removal(tx: Transaction, adapter: int) -> None:
    """Removes all that is left within this transaction, because the name will be used again."""
    while not continue_removal(tx, adapter):
        pass


def _remove(tx: Transaction, table: sa.Table, adapter: int, limit: int) -> int:
    """Removes at most `limit` rows of an adapter. Returns how many it found, at most `limit` + 1."""
    query = sa.select(table.c.id).where(table.c.adapter_id == adapter).limit(limit + 1)
    keys = [row.id for row in tx.execute(query)]
    # The keys are listed: PostgreSQL could estimate that a range of them is most of the table.
    tx.execute(table.delete().where(table.c.id.in_(keys[:limit])))
    return len(keys)
