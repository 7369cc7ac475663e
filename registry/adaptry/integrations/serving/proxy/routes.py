"""The adapter to which each public name is routed, and the adapters that running requests use.

A request is counted in the same step in which its names are looked up. So once a name has moved, no request
can begin with the previous adapter, and `retire` never removes an adapter that a request is about to
use.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from adaptry.core.errors import NotFound, Unavailable


class RouteTable:
    """Public names and their targets, the engine's names of loaded adapters. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._targets: dict[str, str] = {}
        self._suspended: set[str] = set()
        self._retired: set[str] = set()
        self._running: Counter[str] = Counter()
        self._is_paused = False

    def begin(self, models: Sequence[str], timeout: float) -> tuple[str, ...]:
        """Counts a request for `models`, and returns their targets, which the caller must later pass to
        `end`. A name without a route is its own target. Waits up to `timeout` seconds while a name is
        suspended, or all are (`paused`).

        Raises `Unavailable` if that lasts longer, `NotFound` if an adapter is being unloaded.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while self._is_paused or not self._suspended.isdisjoint(models):
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    raise Unavailable(f"{'+'.join(models)} is being replaced by another version; try again")
            targets = tuple(self._targets.get(model, model) for model in models)
            for model, target in zip(models, targets, strict=True):
                if target in self._retired:
                    raise NotFound(f"{model} is no longer served")
            self._running.update(targets)
            return targets

    def end(self, targets: Sequence[str]) -> None:
        with self._changed:
            self._running.subtract(targets)
            self._running = +self._running  # drops counts of zero
            self._changed.notify_all()

    @contextmanager
    def paused(self, timeout: float) -> Iterator[None]:
        """Lets new requests wait while the block runs. The block begins when the running requests have ended,
        or after `timeout` seconds. Only one thread may use it at a time."""
        with self._changed:
            self._is_paused = True
        try:
            self.wait_until_idle(timeout)
            yield
        finally:
            with self._changed:
                self._is_paused = False
                self._changed.notify_all()

    def point(self, name: str, target: str) -> None:
        """Routes requests for `name` to `target` from now on, and resumes suspended ones."""
        with self._changed:
            self._targets[name] = target
            self._suspended.discard(name)
            self._changed.notify_all()

    def remove(self, name: str) -> None:
        with self._changed:
            self._targets.pop(name, None)
            self._suspended.discard(name)
            self._changed.notify_all()

    def suspend(self, name: str) -> None:
        """Removes the route of `name`, and makes new requests for it wait until the name gets a route or is
        removed."""
        with self._changed:
            self._targets.pop(name, None)
            self._suspended.add(name)

    def end_suspensions(self, wanted: Collection[str]) -> None:
        """Resumes the requests that wait for names other than `wanted`."""
        with self._changed:
            self._suspended &= set(wanted)
            self._changed.notify_all()

    def retire(self, target: str) -> bool:
        """Stops admitting requests to `target`. Has no effect and returns False while requests use it."""
        with self._changed:
            if self._running[target]:
                return False
            self._retired.add(target)
            return True

    def admit(self, target: str) -> None:
        """Reverses `retire`."""
        with self._changed:
            self._retired.discard(target)

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until no request is running. Returns whether none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def targets(self) -> Mapping[str, str]:
        """The target of each public name."""
        with self._changed:
            return dict(self._targets)

    def in_use(self) -> frozenset[str]:
        """The targets that running requests use."""
        with self._changed:
            return frozenset(self._running)
