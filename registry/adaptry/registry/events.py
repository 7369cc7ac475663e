"""The events role: every event of all adapters that the caller may read, as it happens.

Events are numbered, and become visible in the order of their numbers, whichever process wrote them. So a
reader that continues from the last number misses nothing, and needs no other state.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fnmatch import translate
from typing import TYPE_CHECKING

from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName

if TYPE_CHECKING:
    from adaptry.registry.records import Event, EventBatch

MAX_GLOBS = 64
_MAX_GLOB = 200
_MAX_COMPILED_GLOBS = 512  # characters of all globs that must be compiled, which takes 3 ms
_LAST = 2**63 - 1


class Events(ABC):
    """The events of all adapters, from any number on."""

    @abstractmethod
    def read(
        self, after: int | None = None, limit: int = 50, wait: float = 0.0, adapters: Sequence[str] = ()
    ) -> EventBatch:
        """The events after number `after` (None: only new events), oldest first.

        If no event has happened yet, waits up to `wait` seconds for the first. A call examines at most a few
        thousand events, so it may return early without any event if most are not visible to the caller:
        continue from the result's `seq`, which equals `after` only at the end. `adapters` are globs of names
        (`acme/*`), one of which must match; without globs, the result includes events about bases. Raises
        `Invalid`.
        """


def check_events_query(after: int | None, wait: float, adapters: Sequence[str]) -> None:
    """Raises `Invalid` for invalid arguments of a feed."""
    if after is not None and not 0 <= after <= _LAST:
        raise Invalid("events are numbered from 1: `after` must be the number of the last event seen, or 0")
    if not (math.isfinite(wait) and wait >= 0):
        raise Invalid("wait must be a number of seconds, or 0")
    if len(adapters) > MAX_GLOBS or any(len(glob) > _MAX_GLOB for glob in adapters):
        raise Invalid(f"at most {MAX_GLOBS} globs of names are allowed, with {_MAX_GLOB} characters each")
    if sum(map(len, filter(_needs_engine, adapters))) > _MAX_COMPILED_GLOBS:
        raise Invalid(
            f"the globs of names have more than {_MAX_COMPILED_GLOBS} characters together, not counting"
            " names and globs with a single * at the end (acme/*); pass fewer or shorter ones"
        )


def adapters_of(event: Event) -> tuple[AdapterName, ...]:
    """The adapters that an event is about: none for an event about a base, both names for a rename."""
    if event.name is None:
        return ()
    if event.kind == "adapter.renamed":
        return event.name, AdapterName.parse(event.detail["was"])
    return (event.name,)


class NameFilter:
    """Globs of adapters' names, compiled once for all events of a listener.

    `fnmatch` would compile the globs again whenever other listeners' globs evict them from its cache. `a*` is
    compared as a prefix, and a plain name by equality.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        self.globs = tuple(globs)
        self._patterns = tuple(re.compile(translate(glob)) for glob in globs if _needs_engine(glob))
        plain = [glob for glob in globs if not _needs_engine(glob)]
        self._names = frozenset(glob for glob in plain if not glob.endswith("*"))
        self._beginnings = tuple(glob[:-1] for glob in plain if glob.endswith("*"))

    def matches(self, event: Event) -> bool:
        """Whether a glob matches one of the event's adapters; without globs every event matches."""
        return not self.globs or any(map(self._fits_name, map(str, adapters_of(event))))

    def _fits_name(self, name: str) -> bool:
        return (
            name in self._names
            or name.startswith(self._beginnings)
            or any(pattern.match(name) for pattern in self._patterns)
        )


def _needs_engine(glob: str) -> bool:
    """Whether the glob is more than a name, or a prefix followed by `*`."""
    return any(character in glob.removesuffix("*") for character in "*?[")
