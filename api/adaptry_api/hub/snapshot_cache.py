"""Snapshots of adapters that are used again while nothing in the catalog has changed.

A client asks for a repository, then for each of its files twice. Without this, each request reads adapter,
commit and version again. The rules are those of `answer_cache`: authentication first, then a check for
commits by any process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import Annotated, TypeVar, cast

from anyio import to_thread
from fastapi import Depends, Request

from adaptry.core.errors import FileMissing
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Catalog
from adaptry_api.answer_cache import AnswerCache
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import Caller
from adaptry_api.commit_watch import Commit, CommitWatch
from adaptry_api.hub.adapters import adapter_repository
from adaptry_api.hub.addresses import repository_id
from adaptry_api.hub.refusals import HubNotFound
from adaptry_api.hub.repo_lookup import Repository, find_repository, hub_reader
from adaptry_api.hub.repo_types import REPOSITORY_LOOKUPS
from adaptry_api.hub.small_files import keep_small_files
from adaptry_api.hub.snapshots import KeptAnswer, RepositoryFile, Snapshot
from adaptry_api.quick_reads import QuickReads

MOST = 256
"""Maximum number of snapshots that are kept."""
_MOST_FILES = 64
_MOST_KNOWN = 4096
_SMALL_FILES = "small files"
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class KeptSnapshots:
    """The kept snapshots of a server process, and the threads on which adapters are looked up again.

    A snapshot is kept under the requested revision, and under its commit's id: a client first asks for a
    branch, then for the files of a commit. A version's commit has the same files, state and warnings under
    each of its names.
    `known` lists the lookups that were made before. Their results from files (git ids, cards) are cached by
    digest, so repeating such a lookup only reads rows.
    """

    by_revision: AnswerCache[Snapshot]
    by_commit: AnswerCache[Snapshot]
    commits: CommitWatch
    catalog: Catalog
    reads: QuickReads
    known: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, state: AppState) -> KeptSnapshots | None:
        """None for a mirror, whose reads may query the mirrored registry."""
        if not state.quick_reads.is_available:
            return None
        by_revision = AnswerCache[Snapshot](state.commits, MOST)
        by_commit = AnswerCache[Snapshot](state.commits, MOST)
        return cls(by_revision, by_commit, state.commits, state.catalog, state.quick_reads)

    async def read(self, about: object, read: Callable[[], Found]) -> tuple[Found, Commit | None]:
        """The result of `read`, which runs in one transaction, on a thread for quick reads; and the commit as
        of which it was read, to pass to `keep`. `about`: see `Catalog.read_prepared`.
        """
        if self.commits.is_immediate:
            read = partial(self._together, read)
        return await self.reads.run(self.commits.with_commit(read, about=about))

    def _together(self, read: Callable[[], Found]) -> Found:
        with self.catalog.read_together():
            return read()

    async def look_up(self, key: str, identity: Identity) -> Snapshot | None:
        """The kept snapshot, if the catalog has not changed since."""
        if self.by_revision.is_absent(key, identity) and self.by_commit.is_absent(key, identity):
            return None
        await self.look()
        return self.find(key, identity)

    async def look(self) -> Commit | None:
        """Drops everything if the catalog has changed. Returns its last commit, to pass to `keep`. Look for a
        snapshot before the next `await`.
        """
        commit = await self.by_revision.look()
        self.by_commit.look_at(commit)
        return commit

    def look_at_once(self) -> bool:
        """Like `look`, without waiting; False if that is not possible."""
        commit = self.commits.presumed()
        if commit is None:
            return False
        self.by_revision.look_at(commit)
        self.by_commit.look_at(commit)
        return True

    def find(self, key: str, identity: Identity) -> Snapshot | None:
        """The kept snapshot, as of the last look."""
        snapshot = self.by_revision.find(key, identity)
        if snapshot is None:  # it may have been looked up by the name of a branch
            snapshot = self.by_commit.find(key, identity)
        return snapshot

    def keep(
        self, id: str, revision: str, identity: Identity, snapshot: Snapshot, commit: Commit | None
    ) -> None:
        if not snapshot.depends_on_catalog or len(snapshot.files) > _MOST_FILES:
            return
        self.by_revision.keep(_key(id, revision), identity, snapshot, commit)
        if snapshot.is_version:
            self.by_commit.keep(_key(id, snapshot.commit), identity, snapshot, commit)

    def note_known(self, key: str, what: str) -> None:
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known.add((key, what))


@dataclass(frozen=True, slots=True)
class SnapshotLookup:
    """Looks up snapshots of the repository that a URL names, for the caller. Only to be used on the event
    loop.
    """

    request: Request
    identity: Identity
    kept: KeptSnapshots | None

    async def use(self, revision: str, use: Callable[[Snapshot], Found]) -> Found:
        """Calls `use` with the snapshot, in a thread, and returns its result. Raises the errors of
        `Repository.snapshot` and of `use`.
        """
        snapshot = await self._kept_at(revision)
        if snapshot is not None:
            return await to_thread.run_sync(use, snapshot)
        return await self._look_up(revision, use, None)

    async def answer(self, what: str, revision: str, make: Callable[[Snapshot], KeptAnswer]) -> KeptAnswer:
        """The answer that `make` gives for a snapshot, kept with it under the name `what`."""
        snapshot = await self._kept_at(revision)
        if snapshot is None:
            return await self._look_up(revision, keeping(what, make), what)
        if (answer := snapshot.answers.get(what)) is not None:
            return answer
        return await to_thread.run_sync(keeping(what, make), snapshot)

    async def answer_from_files(
        self, what: str, revision: str, make: Callable[[Snapshot], KeptAnswer]
    ) -> KeptAnswer:
        """Like `answer`, for a `make` that uses only the list of files. A kept snapshot has few files, so
        `make` runs on the event loop.
        """
        snapshot = await self._kept_at(revision)
        if snapshot is None:
            return await self._look_up(revision, keeping(what, make), what)
        if (answer := snapshot.answers.get(what)) is not None:
            return answer
        return keeping(what, make)(snapshot)

    async def file(self, revision: str, path: str) -> tuple[Snapshot, RepositoryFile, tuple[str, ...]]:
        """A file that may be read, its snapshot, and the warnings to send with it."""
        snapshot = await self._kept_at(revision)
        if snapshot is not None:
            return file_of(path, snapshot)
        return await self._look_up(revision, partial(file_of, path), "file")

    def kept_now(self, revision: str) -> Snapshot | None:
        """The kept snapshot, without waiting for anything; None if it must be looked up."""
        if self.kept is None or not self.kept.look_at_once():
            return None
        return self.kept.find(self._key(revision), self.identity)

    async def _kept_at(self, revision: str) -> Snapshot | None:
        """The kept snapshot; None if it must be looked up."""
        return await self.kept.look_up(self._key(revision), self.identity) if self.kept else None

    async def _look_up(self, revision: str, use: Callable[[Snapshot], Found], what: str | None) -> Found:
        """Reads the snapshot, keeps it, and returns the result of `use`. `what` names `use`; None if `use`
        differs between calls.
        """
        reader, id, key = hub_reader(self.request, self.identity), self.id, self._key(revision)

        made: list[Snapshot] = []
        refused: list[Exception] = []
        commit: Commit | None = None

        def look_up(find: Callable[[], Repository | None]) -> Found | None:
            repository = find()
            if repository is None:
                return None
            snapshot = repository.snapshot(revision)
            if snapshot.depends_on_catalog:
                snapshot.warnings()  # looked up now, so that a kept snapshot is used without reading rows
            made.append(snapshot)
            return use(snapshot)

        try:
            found = None
            if self.kept and what and (key, what) in self.kept.known:
                has_small_files = (id, _SMALL_FILES) in self.kept.known

                def look_up_again() -> Found | None:
                    try:
                        found = look_up(partial(adapter_repository, reader, id))
                    except Exception as error:
                        if not made:
                            raise
                        refused.append(error)  # raised below, when the commit is known
                        return None
                    if made and has_small_files:
                        keep_small_files(made[0])
                    return found

                found, commit = await self.kept.read((key, what), look_up_again)
            if refused:
                raise refused[0]
            if not made:
                commit = await self.kept.look() if self.kept else None
                find = partial(find_repository, reader, id, REPOSITORY_LOOKUPS)
                found = await to_thread.run_sync(look_up, find)
        finally:
            if self.kept and made:  # also if it has no such file: clients probe for several
                self.kept.keep(id, revision, self.identity, made[0], commit)
                if what and made[0].depends_on_catalog:
                    self.kept.note_known(key, what)
        return cast(Found, found)

    def note_small_files(self) -> None:
        """Notes that small files of the repository were requested, so the next look-up reads them too."""
        if self.kept:
            self.kept.note_known(self.id, _SMALL_FILES)

    @property
    def id(self) -> str:
        return repository_id(self.request)

    def _key(self, revision: str) -> str:
        return _key(self.id, revision)


def _key(id: str, revision: str) -> str:
    return f"{id}\0{revision}"


def file_of(path: str, snapshot: Snapshot) -> tuple[Snapshot, RepositoryFile, tuple[str, ...]]:
    """The same as `SnapshotLookup.file`, of a snapshot."""
    snapshot.require_available()
    try:
        file = snapshot.file(path)
    except FileMissing as error:
        raise HubNotFound("EntryNotFound", error.message, snapshot.commit) from None
    return snapshot, file, snapshot.warnings()


def keeping(what: str, make: Callable[[Snapshot], KeptAnswer]) -> Callable[[Snapshot], KeptAnswer]:
    """Wraps `make` so that its answer is kept with the snapshot."""

    def made(snapshot: Snapshot) -> KeptAnswer:
        answer = snapshot.answers[what] = make(snapshot)
        return answer

    return made


def snapshot_lookup(request: Request, identity: Identity) -> SnapshotLookup:
    """For the repository that the request's URL names."""
    kept = cast(KeptSnapshots | None, request.app.state.hub_snapshots)
    return SnapshotLookup(request, identity, kept)


async def _lookup(request: Request, identity: Caller) -> SnapshotLookup:
    return snapshot_lookup(request, identity)


FindSnapshot = Annotated[SnapshotLookup, Depends(_lookup)]
"""Finds snapshots of the repository that a URL names."""
