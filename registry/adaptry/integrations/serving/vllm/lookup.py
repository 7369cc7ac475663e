"""Looks up the version that a ref selects: the registry's answer, or for a limited time the last known one.

Calls block, so the resolver makes them on its own threads. After a failed call, the registry counts as away
until `probe` reaches it again, so that requests for known names do not wait for timeouts.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from adaptry.core.errors import (
    AdaptryError,
    Conflict,
    NotFound,
    ProtocolMismatch,
    Unauthenticated,
    Unavailable,
    Withdrawn,
)
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import Label, Ref
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.worker.last_known import KnownTarget, LastKnownTargets
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo

log = logging.getLogger("vllm.adaptry")

UNREACHABLE = (Unavailable, Unauthenticated, ProtocolMismatch)
"""Errors that do not concern an adapter: the registry does not answer, or refuses this token."""
_TOKEN_REFUSED = "the registry refuses this engine's ADAPTRY_TOKEN: "


@dataclass(frozen=True, slots=True)
class Resolution:
    """The version that a ref selects. `known` is set if the version comes from an earlier answer of the
    registry.
    """

    version: VersionInfo
    known: KnownTarget | None = None


class RefLookup:
    """Looks refs up in a registry, with `last_known` while it is unreachable."""

    def __init__(self, registry: Registry, cache: Cache, last_known: LastKnownTargets) -> None:
        self.last_known = last_known
        self._registry = registry
        self._cache = cache
        self._failure: AdaptryError | None = None

    @property
    def is_away(self) -> bool:
        """Whether the registry failed to answer its last call."""
        return self._failure is not None

    def note_failure(self, error: AdaptryError) -> None:
        """Records that a call anywhere found that the registry does not answer."""
        if isinstance(error, Unauthenticated) and not error.message.startswith(_TOKEN_REFUSED):
            error = Unauthenticated(f"{_TOKEN_REFUSED}{error.message}")  # clients have their own tokens
        if self._failure is None:
            span = _hours(self.last_known.max_age)
            log.warning(
                "the registry does not answer; names are served as last known, for at most %s: %s",
                span,
                error.message,
            )
        self._failure = error

    def probe(self) -> None:
        """Tests whether an unreachable registry answers again."""
        if self._failure is not None:
            self._registry.events.read()
            self._failure = None
            log.warning("the registry answers again")

    def resolve(self, ref: Ref) -> Resolution:
        """The version that the ref selects. Raises `NotFound`; `Unavailable` if the registry is unreachable
        and no known target is recent; `Conflict` if it is behind; `Withdrawn` for a known version that was
        recalled on this machine."""
        if self._failure is not None:
            return self._last_known_target(ref, self._failure)
        try:
            return Resolution(self._resolve(ref))
        except NotFound:
            self.last_known.forget(ref)
            raise
        except Conflict as error:  # the registry is behind
            return self._last_known_target(ref, error)
        except UNREACHABLE as error:
            self.note_failure(error)
            return self._last_known_target(ref, self._failure or error)

    def _resolve(self, ref: Ref) -> VersionInfo:
        if isinstance(ref.selector, Label):
            try:
                alias = self._registry.aliases.get(ref.name, ref.selector.label)
            except NotFound:
                return self._registry.versions.get(ref)  # a branch or tag, or its error
            self.last_known.require_current(ref, alias.generation)
            return self._registry.versions.get(Ref.of_revision(ref.name, alias.digest))
        return self._registry.versions.get(ref)

    def _last_known_target(self, ref: Ref, error: AdaptryError) -> Resolution:
        known = self.last_known.find(ref)
        if known is None:
            self.last_known.reload()  # another worker on this machine may have stored it
            known = self.last_known.find(ref)
        if known is None:
            raise type(error)(error.message)
        self._require_fresh(ref, known, error)
        version = known.version
        if version.state not in WITHDRAWN and (reason := self._cache.recall_reason(version.digest)):
            raise Withdrawn(f"{version.label} was recalled on this machine ({reason})")
        return Resolution(version, known)

    def _require_fresh(self, ref: Ref, known: KnownTarget, error: AdaptryError) -> None:
        """Raises `Unavailable` if the last known target is too old."""
        if not self.last_known.is_fresh(known):
            raise Unavailable(
                f"the registry last confirmed {ref} at {known.confirmed_at:%Y-%m-%d %H:%M} UTC; without the"
                f" registry a name is served for {_hours(self.last_known.max_age)} (ADAPTRY_OFFLINE_HOURS):"
                f" {error.message}"
            )


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:g} h"
