"""Snapshots of adapters that are used again while nothing in the catalog has changed.

A client asks for a repository, then for each of its files twice. Without this, each request reads adapter,
commit and version again. The rules are those of `answer_cache`: authentication first, then a check for
commits by any process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar, cast

from anyio import to_thread
from fastapi import Depends, Request

from adaptry.core.errors import FileMissing
from adaptry.core.identity import Identity
from adaptry_api.answer_cache import AnswerCache
from adaptry_api.auth_policy import Caller, app_state_of
from adaptry_api.hub.addresses import RepositoryId
from adaptry_api.hub.refusals import HubNotFound
from adaptry_api.hub.repo_lookup import Repository
from adaptry_api.hub.repo_types import FindRepository
from adaptry_api.hub.snapshots import RepositoryFile, Snapshot

MOST = 256
"""Maximum number of snapshots that are kept."""
_MOST_FILES = 64
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class SnapshotLookup:
    """Looks up snapshots of the repository that a URL names, for the caller. Only to be used on the event
    loop.
    """

    find: Callable[[], Repository]
    id: str
    identity: Identity
    kept: AnswerCache[Snapshot] | None

    async def use(self, revision: str, use: Callable[[Snapshot], Found], *, is_quick: bool = False) -> Found:
        """The result of `use`, which runs in a thread, unless it `is_quick` and the snapshot was kept: then
        it reads nothing. Raises the errors of `Repository.snapshot`, and of `use`.
        """
        key = f"{self.id}@{revision}"
        commit = await self.kept.look() if self.kept else None
        snapshot = self.kept.find(key, self.identity) if self.kept else None
        if snapshot is not None:
            return use(snapshot) if is_quick else await to_thread.run_sync(use, snapshot)

        def look_up() -> tuple[Snapshot, Found]:
            made = self.find().snapshot(revision)
            return made, use(made)

        made, found = await to_thread.run_sync(look_up)
        if self.kept and made.depends_on_catalog and len(made.files) <= _MOST_FILES:
            self.kept.keep(key, self.identity, made, commit)
        return found

    async def file(self, revision: str, path: str) -> tuple[Snapshot, RepositoryFile, tuple[str, ...]]:
        """A file that may be read, its snapshot, and the warnings to send with it."""
        return await self.use(revision, lambda snapshot: _file_of(snapshot, path), is_quick=True)


def _file_of(snapshot: Snapshot, path: str) -> tuple[Snapshot, RepositoryFile, tuple[str, ...]]:
    snapshot.require_available()
    try:
        file = snapshot.file(path)
    except FileMissing as error:
        raise HubNotFound("EntryNotFound", error.message, snapshot.commit) from None
    return snapshot, file, snapshot.warnings()


async def _lookup(
    request: Request, identity: Caller, find: FindRepository, id: RepositoryId
) -> SnapshotLookup:
    # If reads may wait for another machine, searching for a commit may wait too.
    is_kept = app_state_of(request).quick_reads.is_available
    kept = cast(AnswerCache[Snapshot], request.app.state.hub_snapshots) if is_kept else None
    return SnapshotLookup(find, id, identity, kept)


FindSnapshot = Annotated[SnapshotLookup, Depends(_lookup)]
"""Finds snapshots of the repository that a URL names."""
