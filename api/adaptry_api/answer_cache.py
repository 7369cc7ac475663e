"""Answers that are sent again while nothing in the catalog has changed.

An answer is kept for the identity that got it, and used only after the request's own authentication and a
look at the catalog (`CommitWatch`) in the same request: if anybody has committed since, in any process, all
answers are dropped. So it is exactly what reading it again would give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from adaptry.core.identity import Identity

_MOST = 2048
Answer = TypeVar("Answer")


class _Kept(NamedTuple, Generic[Answer]):
    """`identity` is kept alive, so that no other has its place in memory."""

    identity: Identity
    answer: Answer


class AnswerCache(Generic[Answer]):
    """At most `most` answers. `watch` gives a number that changes with every commit; None if it is unknown
    now. Only to be used on the event loop.
    """

    def __init__(self, watch: Callable[[], int | None], most: int = _MOST) -> None:
        self._watch = watch
        self._most = most
        self._commit: int | None = None
        self._kept: dict[tuple[str, int], _Kept[Answer]] = {}

    def look(self) -> int | None:
        """Looks whether the catalog has changed. The number of its last commit is for `keep`."""
        commit = self._watch()
        if commit != self._commit or commit is None:
            self._kept.clear()
            self._commit = commit
        return commit

    def find(self, path: str, identity: Identity) -> Answer | None:
        """The answer that this identity got from this address, as of the last `look`."""
        kept = self._kept.get((path, id(identity)))
        return kept.answer if kept else None

    def keep(self, path: str, identity: Identity, answer: Answer, commit: int | None) -> None:
        """Keeps an answer that was read after `look` gave `commit`, unless the catalog was seen to change."""
        if commit is None or commit != self._commit:
            return
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[path, id(identity)] = _Kept(identity, answer)
