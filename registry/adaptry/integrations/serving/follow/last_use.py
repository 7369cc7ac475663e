"""The last use of each name: as the proxy counts it, else the time of the last pass that saw it in use."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from adaptry.integrations.serving.engines import Engine


class LastUse:
    """The last use of each name (Unix time). With a proxy, a request for a name that is not loaded is a use
    too."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._seen: dict[str, float] = {}

    def observe(self) -> None:
        """Records which names are in use now. Raises `Unavailable`."""
        self._seen |= dict.fromkeys(self._engine.names_in_use(), self._clock())
        for name, usage in self._engine.usage().items():
            self._seen[name] = max(usage.last_used, self._seen.get(name, 0.0))

    def get(self, name: str) -> float | None:
        """The last use of a name; None if none is known."""
        return self._seen.get(name)

    def retain(self, names: Collection[str]) -> None:
        """Forgets all names but `names`."""
        self._seen = {name: at for name, at in self._seen.items() if name in names}
