"""Caches responses for as long as the catalog does not change.

A response is cached for the identity that received it. It is used only after authenticating the new request
and checking the catalog for commits (`commit_watch`) in the same request: after a commit by any process, all
responses are dropped. So a cached response equals a new one.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from adaptry.core.identity import Identity
from adaptry_api.commit_watch import Commit, CommitWatch

_CACHE_SIZE = 2048
Answer = TypeVar("Answer")


class _CachedAnswer(NamedTuple, Generic[Answer]):
    """A cached answer. It keeps a reference to `identity`, so that no other object can get the same address
    in memory.
    """

    identity: Identity
    answer: Answer


class AnswerCache(Generic[Answer]):
    """Caches at most `maximum` responses. For use on the event loop only."""

    def __init__(self, commits: CommitWatch, maximum: int = _CACHE_SIZE) -> None:
        self._commits = commits
        self._most = maximum
        self._commit: Commit | None = None
        self._kept: dict[tuple[str, int], _CachedAnswer[Answer]] = {}
        commits.on_change(self.revalidate_at)

    def is_absent(self, path: str, identity: Identity) -> bool:
        """Whether nothing is cached for this request at any commit, and a read itself reports the last
        commit.
        """
        return self._commits.reads_report_commit and (path, id(identity)) not in self._kept

    async def get(self, path: str, identity: Identity) -> Answer | None:
        """Returns the cached answer for this identity and address, if nothing has been committed since."""
        if self.is_absent(path, identity):
            return None
        await self.revalidate()
        return self.peek(path, identity)

    async def revalidate(self) -> Commit | None:
        """Checks whether the catalog has changed. Returns its last commit, to pass to `put`. Call `peek`
        before the next `await`.
        """
        commit = await self._commits.last_commit()
        self.revalidate_at(commit)
        return commit

    def revalidate_at(self, commit: Commit | None) -> None:
        """Like `revalidate`, with the last commit that another cache has already looked up."""
        if commit != self._commit or commit is None:
            self._kept.clear()
            self._commit = commit

    def peek(self, path: str, identity: Identity) -> Answer | None:
        """Returns the cached answer for this identity and address, as of the last `revalidate`."""
        kept = self._kept.get((path, id(identity)))
        return kept.answer if kept else None

    def peek_at(self, path: str, identity: Identity, commit: Commit | None) -> Answer | None:
        """Like `peek`, as of the commit that `CommitWatch.last_known` returned."""
        if commit is None:
            return None
        self.revalidate_at(commit)
        return self.peek(path, identity)

    def put(self, path: str, identity: Identity, answer: Answer, commit: Commit | None) -> None:
        """Caches a response that was read as of `commit` (`CommitWatch.with_commit`)."""
        if commit is None:
            return
        if commit != self._commit:
            if not self._commits.reads_report_commit:
                return  # the last revalidate may have found a later one
            self._commits.note(commit)
            # `note` does nothing if this commit was noted before; this cache may be as of another one since.
            self.revalidate_at(commit)
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[path, id(identity)] = _CachedAnswer(identity, answer)
