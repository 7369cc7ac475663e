"""Caches snapshots of adapters for as long as nothing in the catalog changes.

A client requests a repository, then each of its files twice. Without this, each request reads adapter,
commit and version again. The rules are those of `answer_cache`: authentication first, then a check for
commits by any process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import Annotated, TypeVar, cast

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
from adaptry_api.hub.snapshots import CachedAnswer, RepositoryFile, Snapshot
from adaptry_api.quick_reads import QuickReads
from adaptry_api.route_threads import run_in_own_threads

MAX_SNAPSHOTS = 256
"""Maximum number of cached snapshots."""
_MAX_KNOWN = 4096
_SMALL_FILES = "small files"
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class SnapshotCache:
    """The cached snapshots of a server process, and the threads on which adapters are looked up again.

    A snapshot is cached under the requested revision, and under its commit's id: a client first asks for a
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
    def of(cls, state: AppState) -> SnapshotCache | None:
        """The server's cache; None for a mirror, since its reads may query the mirrored registry."""
        if not state.quick_reads.is_available:
            return None
        by_revision = AnswerCache[Snapshot](state.commits, MAX_SNAPSHOTS)
        by_commit = AnswerCache[Snapshot](state.commits, MAX_SNAPSHOTS)
        return cls(by_revision, by_commit, state.commits, state.catalog, state.quick_reads)

    async def read(self, about: object, read: Callable[[], Found]) -> tuple[Found, Commit | None]:
        """The result of `read`, which runs in one transaction, on a thread for quick reads; and the commit as
        of which it was read, to pass to `put`. `about`: see `Catalog.read_prepared`.
        """
        if self.commits.is_immediate:
            read = partial(self._together, read)
        return await self.reads.run(self.commits.with_commit(read, about=about))

    def _together(self, read: Callable[[], Found]) -> Found:
        with self.catalog.read_together():
            return read()

    async def get(self, key: str, identity: Identity) -> Snapshot | None:
        """Returns the cached snapshot if the catalog has not changed since it was read."""
        if self.by_revision.is_absent(key, identity) and self.by_commit.is_absent(key, identity):
            return None
        await self.revalidate()
        return self.peek(key, identity)

    async def revalidate(self) -> Commit | None:
        """Drops everything if the catalog has changed. Returns its last commit, to pass to `put`. Call `peek`
        before the next `await`.
        """
        commit = await self.by_revision.revalidate()
        self.by_commit.revalidate_at(commit)
        return commit

    def try_revalidate(self) -> bool:
        """Like `revalidate`, without waiting; False if that is not possible."""
        commit = self.commits.last_known()
        if commit is None:
            return False
        self.by_revision.revalidate_at(commit)
        self.by_commit.revalidate_at(commit)
        return True

    def peek(self, key: str, identity: Identity) -> Snapshot | None:
        """The cached snapshot, as of the last `revalidate`."""
        snapshot = self.by_revision.peek(key, identity)
        if snapshot is None:  # it may have been looked up by the name of a branch
            snapshot = self.by_commit.peek(key, identity)
        return snapshot

    def put(
        self, id: str, revision: str, identity: Identity, snapshot: Snapshot, commit: Commit | None
    ) -> None:
        if not snapshot.is_cacheable:
            return
        self.by_revision.put(_key(id, revision), identity, snapshot, commit)
        if snapshot.is_version:
            self.by_commit.put(_key(id, snapshot.commit), identity, snapshot, commit)

    def note_known(self, key: str, what: str) -> None:
        if len(self.known) >= _MAX_KNOWN:
            self.known.clear()
        self.known.add((key, what))


@dataclass(frozen=True, slots=True)
class SnapshotLookup:
    """Looks up snapshots of the repository that a URL names, for the caller. Only to be used on the event
    loop.
    """

    request: Request
    identity: Identity
    cache: SnapshotCache | None

    async def use(self, revision: str, use: Callable[[Snapshot], Found]) -> Found:
        """Calls `use` with the snapshot, in a thread, and returns its result. Raises the errors of
        `Repository.snapshot` and of `use`.
        """
        snapshot = await self._cached_at(revision)
        if snapshot is not None:
            return await run_in_own_threads("reads", partial(use, snapshot))
        return await self._look_up(revision, use, None)

    async def answer(
        self, what: str, revision: str, make: Callable[[Snapshot], CachedAnswer]
    ) -> CachedAnswer:
        """The answer that `make` gives for a snapshot, cached with it under the name `what`."""
        snapshot = await self._cached_at(revision)
        if snapshot is None:
            return await self._look_up(revision, cached(what, make), what)
        if (answer := snapshot.answers.get(what)) is not None:
            return answer
        return await run_in_own_threads("reads", partial(cached(what, make), snapshot))

    async def answer_from_files(
        self, what: str, revision: str, make: Callable[[Snapshot], CachedAnswer]
    ) -> CachedAnswer:
        """Like `answer`, for a `make` that uses only the list of files. A cached snapshot has few files, so
        `make` runs on the event loop.
        """
        snapshot = await self._cached_at(revision)
        if snapshot is None:
            return await self._look_up(revision, cached(what, make), what)
        if (answer := snapshot.answers.get(what)) is not None:
            return answer
        return cached(what, make)(snapshot)

    async def file(self, revision: str, path: str) -> tuple[Snapshot, RepositoryFile, tuple[str, ...]]:
        """A file that may be read, its snapshot, and the warnings to send with it."""
        snapshot = await self._cached_at(revision)
        if snapshot is not None:
            return file_of(path, snapshot)
        return await self._look_up(revision, partial(file_of, path), "file")

    def cached_now(self, revision: str) -> Snapshot | None:
        """The cached snapshot, without waiting for anything; None if it must be looked up."""
        if self.cache is None or not self.cache.try_revalidate():
            return None
        return self.cache.peek(self._key(revision), self.identity)

    async def _cached_at(self, revision: str) -> Snapshot | None:
        """The cached snapshot; None if it must be looked up."""
        return await self.cache.get(self._key(revision), self.identity) if self.cache else None

    async def _look_up(self, revision: str, use: Callable[[Snapshot], Found], what: str | None) -> Found:
        """Reads the snapshot, caches it, and returns the result of `use`. `what` names `use`; None if `use`
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
                snapshot.warnings()  # looked up now, so that a cached snapshot is used without reading rows
            made.append(snapshot)
            return use(snapshot)

        try:
            found = None
            if self.cache and what and (key, what) in self.cache.known:
                has_small_files = (id, _SMALL_FILES) in self.cache.known

                def look_up_again() -> Found | None:
                    try:
                        found = look_up(partial(adapter_repository, reader, id))
                    except Exception as error:
                        if not made:
                            raise
                        refused.append(error)  # raised below, when the commit is known
                        return None
                    if has_small_files and made and made[0].is_cacheable:
                        keep_small_files(made[0])
                    return found

                found, commit = await self.cache.read((key, what), look_up_again)
            if refused:
                raise refused[0]
            if not made:
                commit = await self.cache.revalidate() if self.cache else None
                find = partial(find_repository, reader, id, REPOSITORY_LOOKUPS)
                found = await run_in_own_threads("reads", partial(look_up, find))
        finally:
            if self.cache and made:  # cached even if the file is missing: clients probe for several
                self.cache.put(id, revision, self.identity, made[0], commit)
                if what and made[0].depends_on_catalog:
                    self.cache.note_known(key, what)
        return cast(Found, found)

    def note_small_files(self) -> None:
        """Notes that small files of the repository were requested, so the next look-up reads them too."""
        if self.cache:
            self.cache.note_known(self.id, _SMALL_FILES)

    @property
    def id(self) -> str:
        return repository_id(self.request)

    def _key(self, revision: str) -> str:
        return _key(self.id, revision)


def _key(id: str, revision: str) -> str:
    return f"{id}\0{revision}"


def file_of(path: str, snapshot: Snapshot) -> tuple[Snapshot, RepositoryFile, tuple[str, ...]]:
    """Like `SnapshotLookup.file`, for a given snapshot."""
    snapshot.require_available()
    try:
        file = snapshot.file(path)
    except FileMissing as error:
        raise HubNotFound("EntryNotFound", error.message, snapshot.commit) from None
    return snapshot, file, snapshot.warnings()


def cached(what: str, make: Callable[[Snapshot], CachedAnswer]) -> Callable[[Snapshot], CachedAnswer]:
    """Wraps `make` so that its answer is cached with the snapshot."""

    def made(snapshot: Snapshot) -> CachedAnswer:
        answer = snapshot.answers[what] = make(snapshot)
        return answer

    return made


def snapshot_lookup(request: Request, identity: Identity) -> SnapshotLookup:
    """The lookup for the repository that the request's URL names."""
    cache = cast(SnapshotCache | None, request.app.state.hub_snapshots)
    return SnapshotLookup(request, identity, cache)


async def _lookup(request: Request, identity: Caller) -> SnapshotLookup:
    return snapshot_lookup(request, identity)


FindSnapshot = Annotated[SnapshotLookup, Depends(_lookup)]
"""Finds snapshots of the repository that a URL names."""
