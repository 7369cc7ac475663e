"""The events part of the registry interface: every event that the caller may read, of all adapters, as it
happens.

Events are numbered, and become visible in the order of their numbers, whichever process wrote them. So
whoever goes on from the last number misses nothing, and needs to keep nothing else.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fnmatch import translate

from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry.registry.records import Event, EventBatch

MAX_GLOBS = 64
_LONGEST_GLOB = 200
_MOST_WILD = 512  # characters of all globs that have to be compiled: that takes 3 ms
_LAST = 2**63 - 1


class Events(ABC):
    """What happened, from any point on."""

    @abstractmethod
    def read(
        self, after: int | None = None, limit: int = 50, wait: float = 0.0, about: Sequence[str] = ()
    ) -> EventBatch:
        """The events after number `after`, oldest first; None: from now on.

        Where there is none yet, waits up to `wait` seconds for the first. One call looks at a few thousand
        events at most, so among many that are not for the caller it may come back early with nothing: go on
        from the `seq` of the answer, which is `after` itself only at the end. `about` are globs of adapters'
        names (`acme/*`), one of which must fit; without any, events that are about no adapter (a base's) are
        told too. Raises `Invalid`.
        """


def check_events_query(after: int | None, wait: float, about: Sequence[str]) -> None:
    """Raises `Invalid` for what cannot be asked of a feed."""
    if after is not None and not 0 <= after <= _LAST:
        raise Invalid("events are numbered from 1 on: `after` is the number of the last one seen, or 0")
    if not (math.isfinite(wait) and wait >= 0):
        raise Invalid("wait for a number of seconds, or 0 for none")
    if len(about) > MAX_GLOBS or any(len(glob) > _LONGEST_GLOB for glob in about):
        raise Invalid(f"ask for at most {MAX_GLOBS} globs of names, of {_LONGEST_GLOB} characters each")
    if sum(map(len, filter(_needs_engine, about))) > _MOST_WILD:
        raise Invalid(
            f"the globs of names have more than {_MOST_WILD} characters together, without names and globs"
            " with one * at the end (acme/*); ask for fewer or shorter ones"
        )


def adapters_of(event: Event) -> tuple[AdapterName, ...]:
    """Whose refs it is about: none of a base's; of a renaming the name before too."""
    if event.name is None:
        return ()
    if event.kind == "adapter.renamed":
        return event.name, AdapterName.parse(event.detail["was"])
    return (event.name,)


class NameFilter:
    """Globs of adapters' names, compiled once for all events that one listener is offered.

    `fnmatch` would compile the globs again whenever those of other listeners pushed them out of its cache.
    `a*` is compared as the beginning of a name, and a plain name as itself.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        self._is_open = not globs
        self._patterns = tuple(re.compile(translate(glob)) for glob in globs if _needs_engine(glob))
        plain = [glob for glob in globs if not _needs_engine(glob)]
        self._names = frozenset(glob for glob in plain if not glob.endswith("*"))
        self._beginnings = tuple(glob[:-1] for glob in plain if glob.endswith("*"))

    def matches(self, event: Event) -> bool:
        """Whether one of the globs fits one of the event's adapters; without globs every event fits."""
        return self._is_open or any(map(self._fits_name, map(str, adapters_of(event))))

    def _fits_name(self, name: str) -> bool:
        return (
            name in self._names
            or name.startswith(self._beginnings)
            or any(pattern.match(name) for pattern in self._patterns)
        )


def _needs_engine(glob: str) -> bool:
    """Whether it is more than a name, or the beginning of one with `*` after it."""
    return any(character in glob.removesuffix("*") for character in "*?[")
