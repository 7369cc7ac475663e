"""A bounded number of slots that tenants take in turn, so that a busy one does not keep others waiting."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock


class FairSlots:
    """`slots` in total; one tenant can hold all but one of them (or the only one). Thread-safe."""

    def __init__(self, slots: int) -> None:
        self._lock = Lock()
        self._free = slots
        self._most = max(1, slots - 1)
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[Event]] = OrderedDict()

    @contextmanager
    def hold(self, tenant: str, timeout: float) -> Iterator[None]:
        """Holds a slot for `tenant`. Raises `TimeoutError` after `timeout` seconds without one."""
        turn = Event()
        with self._lock:
            self._waiting.setdefault(tenant, deque()).append(turn)
            self._grant()
        if not turn.wait(timeout) and not self._granted_or_withdrawn(tenant, turn):
            raise TimeoutError
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._taken[tenant] -= 1
                self._grant()

    def _granted_or_withdrawn(self, tenant: str, turn: Event) -> bool:
        """Whether a slot was granted at the last moment; otherwise withdraws the request."""
        with self._lock:
            if turn.is_set():
                return True
            self._waiting[tenant].remove(turn)
            return False

    def _grant(self) -> None:
        """Gives free slots to waiting tenants: one each, least recently served first."""
        for tenant in list(self._waiting):
            queue = self._waiting[tenant]
            while queue and self._free and self._taken[tenant] < self._most:
                self._free -= 1
                self._taken[tenant] += 1
                queue.popleft().set()
                self._waiting.move_to_end(tenant)
                if len(self._waiting) > 1:
                    break  # serve the other tenants first
            if not queue:
                del self._waiting[tenant]
        self._taken += Counter()  # forgets tenants without a slot
