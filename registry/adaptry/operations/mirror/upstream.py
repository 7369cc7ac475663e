"""The upstream registry: a version that is requested and missing here is fetched from it, verified and kept.

This is done only for names that this registry does not own, and for callers with rights in the namespace
here. Fetched adapters are private, so a caller sees only what its own rights allow. A ref is resolved
upstream again once the answer is older than `ttl` seconds; while the upstream does not answer, the local
versions are served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock

from adaptry.core.digest import Digest
from adaptry.core.errors import (
    AdaptryError,
    CheckFailed,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Withdrawn,
)
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName, Label, Latest, Ref
from adaptry.operations.mirror.apply import (
    apply_base,
    apply_snapshot,
    has_forgotten_recall,
    plan_state_change,
    point_aliases,
)
from adaptry.operations.mirror.snapshot import take_snapshot
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo

_log = logging.getLogger(__name__)

DEFAULT_TTL = 60.0
_RETRY_DELAY = 10.0
"""Seconds after a failed request during which the upstream is not asked again."""
_FETCH_TIMEOUT = 45.0
"""Seconds to wait for another thread that fetches the same adapter; clients time out after a minute."""
_LOCKS = 64
_MAX_ENTRIES = 65_536
_RETRY_POLICY = RetryPolicy(tries=3)


class UpstreamMirror:
    """Fetches from `upstream` with the operator's token and writes to `local` with full rights. Thread-safe.

    `is_ours` returns whether this registry owns, or once owned, a name; such names are never fetched.
    """

    def __init__(
        self,
        upstream: Registry,
        local: Registry,
        is_ours: Callable[[AdapterName], bool],
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._local = local
        self._is_ours = is_ours
        self._ttl = ttl
        self._clock = clock
        self._locks = tuple(Lock() for _ in range(_LOCKS))
        self._answers: dict[str, tuple[float, AdaptryError | None]] = {}
        self._offline_until = float("-inf")

    def fetch(self, ref: Ref) -> AdaptryError | None:
        """Copies the version that `ref` means upstream. Returns the reason if that failed, for callers who
        then do not find the version.
        """
        known = self._cached_answer(ref)
        if known is not None:
            return known[1]
        if self._is_ours(ref.name):
            return self._note(ref, None)
        # One fetch at a time per name: a second caller waits, and finds the fetched version.
        lock = self._locks[hash(ref.name) % _LOCKS]
        if not lock.acquire(timeout=_FETCH_TIMEOUT):
            return Unavailable(
                f"{ref.name} is being fetched from the upstream registry; try again in a moment"
            )
        try:
            known = self._cached_answer(ref)
            return known[1] if known is not None else self._note(ref, self._attempt(ref))
        finally:
            lock.release()

    def fetch_aliases(self, name: AdapterName) -> AdaptryError | None:
        """Copies every version that an upstream alias points at."""
        problem = self.fetch(Ref(name, Latest()))
        if problem is not None or self._is_ours(name):
            return problem
        try:
            found = self._upstream.aliases.list(name)
        except AdaptryError:
            return None  # serve the local versions
        for alias in found:
            self.fetch(Ref(name, Label(alias.alias)))
        return None

    def require_not_withdrawn(self, name: AdapterName, revision: Digest) -> None:
        """Raises `Withdrawn` if the version is withdrawn upstream; passes if the upstream does not answer."""
        if self._is_ours(name) or self._clock() < self._offline_until:
            return
        try:
            found = self._upstream.versions.get(Ref.of_revision(name, revision))
        except AdaptryError:
            return
        if found.state in WITHDRAWN:
            reason = found.last_state_change.reason if found.last_state_change else "no reason was given"
            raise Withdrawn(
                f"{name}@{found.number} is {found.state} in the upstream registry ({reason}), so it"
                " cannot be added here under that name"
            )

    def close(self) -> None:
        self._upstream.close()

    def _attempt(self, ref: Ref) -> AdaptryError | None:
        if self._clock() < self._offline_until:
            return Unavailable("the upstream registry does not answer; try again in a moment")
        try:
            self._fetch(ref)
        except NotFound:
            return None
        except (Unauthenticated, PermissionDenied) as error:
            return Unavailable(f"the upstream registry refuses this registry's token: {error.message}")
        except Unavailable as error:
            self._offline_until = self._clock() + _RETRY_DELAY
            return Unavailable(f"the upstream registry does not answer: {error.message}")
        except CheckFailed as error:
            _log.warning("%s", error.message)
            return error
        except AdaptryError as error:
            return error
        return None

    def _fetch(self, ref: Ref) -> None:
        meant = self._upstream.versions.get(ref)
        self._sync_version(meant)
        if isinstance(ref.selector, Label) and ref.selector.label in meant.aliases:
            snapshot, _ = take_snapshot(self._upstream, meant)
            point_aliases(self._local.aliases, snapshot.model_copy(update={"aliases": (ref.selector.label,)}))
        if isinstance(ref.selector, Latest):
            self._sync_newer(meant)

    def _sync_newer(self, latest: VersionInfo) -> None:
        """Updates local versions that are newer than the upstream's latest: their state changed there."""
        while True:
            found = self._local.versions.get(Ref(latest.name, Latest()))
            if found.digest == latest.digest or not self._sync_version(
                self._upstream.versions.get(found.revision_ref)
            ):
                return

    def _sync_version(self, there: VersionInfo) -> bool:
        """Copies a version, or its changes. Returns whether anything changed."""
        here = self._version_here(there)
        if here is None and there.state in WITHDRAWN:
            return False
        if here is not None and (here.state, here.metrics) == (there.state, there.metrics):
            return False
        snapshot, manifest = take_snapshot(self._upstream, there)
        if (
            here is not None
            and not has_forgotten_recall(here, snapshot)
            and plan_state_change(here, snapshot) is None
            and here.metrics == there.metrics
        ):
            return False
        if snapshot.base_id is not None:
            info = self._upstream.bases.get(str(snapshot.base_id))
            apply_base(
                self._local,
                self._upstream.bases.record(snapshot.base_id),
                info.names,
                (),
                None,
                info.visibility,
            )
        content = RevisionContent(self._upstream, there, manifest)
        return apply_snapshot(self._local, snapshot, manifest, content, retry=_RETRY_POLICY).is_change

    def _version_here(self, there: VersionInfo) -> VersionInfo | None:
        try:
            return self._local.versions.get(there.revision_ref)
        except NotFound:
            return None

    def _cached_answer(self, ref: Ref) -> tuple[float, AdaptryError | None] | None:
        known = self._answers.get(str(ref))
        return known if known and known[0] > self._clock() else None

    def _note(self, ref: Ref, problem: AdaptryError | None) -> AdaptryError | None:
        if len(self._answers) >= _MAX_ENTRIES:
            self._answers.clear()
        lasts = self._ttl if problem is None else min(self._ttl, _RETRY_DELAY)
        self._answers[str(ref)] = (self._clock() + lasts, problem)
        return problem
