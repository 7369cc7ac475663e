"""Detects dead runners: a runner counts as dead if its counter has not changed for too long.

The time is measured by the watcher's own steady clock. Wall clocks are not used, so a clock that jumps has no
effect. A runner that was only slow loses its current steps, since other runners have begun new attempts of
them.
"""

from __future__ import annotations

from collections.abc import Mapping


class LivenessMonitor:
    """`timeout` is the number of seconds for which a count may stay unchanged."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._seen: dict[str, tuple[int, float]] = {}

    def find_dead(self, beats: Mapping[str, int], now: float) -> frozenset[str]:
        """The runners, among those with these current counts, whose count has not changed for too long."""
        self._seen = {
            id: self._seen[id] if id in self._seen and self._seen[id][0] == count else (count, now)
            for id, count in beats.items()
        }
        dead = frozenset(id for id, (_, since) in self._seen.items() if now - since > self._timeout)
        for id in dead:
            del self._seen[id]  # if it is alive after all, it starts again, perhaps with the same count
        return dead
