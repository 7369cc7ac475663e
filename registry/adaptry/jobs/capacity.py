"""The room of a runner: so many steps at once, in so much memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CapacityLimiter:
    """For many threads. A step that needs more than all there is is let in alone, rather than never."""

    def __init__(self, places: int, memory: int) -> None:
        self._slots = places
        self.memory = memory
        self._free = memory
        self._in_use = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, memory: int) -> Iterator[None]:
        """Waits until there is room, and has it for the block."""
        memory = min(memory, self.memory)
        with self._changed:
            self._changed.wait_for(lambda: self._in_use < self._slots and memory <= self._free)
            self._in_use += 1
            self._free -= memory
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= 1
                self._free += memory
                self._changed.notify_all()
