"""A runner's capacity: how many steps run at once, in how much memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CapacityLimiter:
    """Limits concurrent steps; thread-safe. A step that needs more than the whole memory runs alone."""

    def __init__(self, slots: int, memory: int) -> None:
        self._slots = slots
        self.memory = memory
        self._free = memory
        self._in_use = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, memory: int) -> Iterator[None]:
        """Waits for a slot and `memory` bytes, and holds them for the block."""
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
