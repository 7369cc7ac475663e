"""The part of the waist about what happens: every event that the caller may read, of all adapters, as it comes.

Events are numbered, and become visible in the order of their numbers, whichever process wrote them. So whoever goes
on from the last number misses nothing, and needs to keep nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fnmatch import fnmatchcase

from adaptry.errors import Invalid
from adaptry.records import Event, News
from adaptry.refs import AdapterName

MOST_GLOBS = 64
_LONGEST_GLOB = 200
_LAST = 2**63 - 1


class Feed(ABC):
    """What happened, from any point on."""

    @abstractmethod
    def events(
        self, after: int | None = None, limit: int = 50, wait: float = 0.0, about: Sequence[str] = ()
    ) -> News:
        """The events after number `after`, oldest first; None: from now on.

        Where there is none yet, waits up to `wait` seconds for the first. One call looks at a few thousand events at
        most, so among many that are not for the caller it may come back early with nothing: go on from the `seq` of the
        answer, which is `after` itself only at the end. `about` are globs of adapters' names (`acme/*`), one of which
        must fit; without any, events that are about no adapter (a base's) are told too. Raises `Invalid`.
        """


def check_asked(after: int | None, wait: float, about: Sequence[str]) -> None:
    """Raises `Invalid` for what cannot be asked of a feed."""
    if after is not None and not 0 <= after <= _LAST:
        raise Invalid("events are numbered from 1 on: `after` is the number of the last one seen, or 0")
    if not (math.isfinite(wait) and wait >= 0):
        raise Invalid("wait for a number of seconds, or 0 for none")
    if len(about) > MOST_GLOBS or any(len(glob) > _LONGEST_GLOB for glob in about):
        raise Invalid(f"ask for at most {MOST_GLOBS} globs of names, of {_LONGEST_GLOB} characters each")


def adapters_of(event: Event) -> tuple[AdapterName, ...]:
    """Whose refs it is about: none of a base's; of a renaming the name before too."""
    if event.name is None:
        return ()
    if event.kind == "adapter.renamed":
        return event.name, AdapterName.parse(event.detail["was"])
    return (event.name,)


def is_about(event: Event, globs: Sequence[str]) -> bool:
    """Whether one of the globs fits one of its adapters; without globs everything fits."""
    return not globs or any(fnmatchcase(str(name), glob) for name in adapters_of(event) for glob in globs)
