"""Loads that the engine accepted but did not answer: it may still carry them out.

While an engine does not answer, it gets only a sixth of the time for each further load, so that the worker
soon notices when the engine works again. Otherwise, all other new versions would wait behind each load that
hangs. A load that takes longer is not lost: it has failed only if the engine does not list the version after
the whole time. A recalled version counts as dropped only when its load is known to have ended, because it
could be served afterwards. Engines carry out the loads and unloads of a name in order, so the answer to an
unload, even one that finds nothing, shows that the load has ended.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, Unavailable
from adaptry.integrations.serving.engines import Engine, EngineAdapter
from adaptry.integrations.serving.follow.executor import trial_name
from adaptry.integrations.serving.follow.plan import FollowAction, UnloadAction
from adaptry.integrations.serving.worker.backoff import Backoff
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import Withdrawal

_SHARE = 1 / 6  # of the engine's time to answer
_SLOWEST_ANSWER_FACTOR = 2.0  # as a multiple of the engine's slowest answer


class UnansweredLoads:
    """The versions with an unanswered load, and the names that they may get."""

    def __init__(self, engine: Engine, backoff: Backoff) -> None:
        self._engine = engine
        self._backoff = backoff
        self._names: dict[Digest, set[str]] = {}
        self._is_last_unanswered = False

    @contextlib.contextmanager
    def attempt(self, action: FollowAction) -> Iterator[None]:
        """Limits the engine's time for a load in the block, unless it answered the last one."""
        if isinstance(action, UnloadAction):
            yield
            return
        client = self._engine.client
        shorter = max(_SHARE * client.timeout, _SLOWEST_ANSWER_FACTOR * client.slowest_answer)
        with client.at_most(shorter if self._is_last_unanswered else math.inf):
            yield
        self._is_last_unanswered = False

    def note(self, name: str, version: VersionInfo) -> None:
        """Records that a load of the version, to be served under `name`, got no answer."""
        self._names.setdefault(version.digest, set()).update((name, trial_name(version)))
        self._is_last_unanswered = True

    def accept_late_loads(
        self, targets: Iterable[tuple[str, VersionInfo]], loaded: Sequence[EngineAdapter]
    ) -> None:
        """Forgets the failures of the versions of `targets` that the engine has loaded after all."""
        listed = {(one.name, one.digest) for one in loaded}
        for name, version in targets:
            is_listed = not listed.isdisjoint((each, version.digest) for each in (name, trial_name(version)))
            if is_listed and self._backoff.is_unanswered((name, version.digest)):
                self._backoff.record_success((name, version.digest))
                self._is_last_unanswered = False

    def without_pending(
        self, withdrawals: Sequence[Withdrawal], loaded: Sequence[EngineAdapter]
    ) -> tuple[Withdrawal, ...]:
        """The withdrawn versions that have no load pending in the engine."""
        return tuple(one for one in withdrawals if not self._is_pending(one.digest, loaded))

    def _is_pending(self, digest: Digest, loaded: Sequence[EngineAdapter]) -> bool:
        names = self._names.get(digest, set())
        names -= {one.name for one in loaded}  # a listed name has had its turn
        for name in sorted(names):
            try:
                self._engine.unload(name)
            except (CheckFailed, Conflict, Unavailable):
                return True
            names.discard(name)
        self._names.pop(digest, None)
        return False
