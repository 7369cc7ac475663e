"""Telling living runners from dead ones, by watching: a count that stands still long enough means death.

Long enough is by the watcher's own steady clock. Nobody's wall clock is asked, so none that jumps can kill
anyone; and a runner that was only slow is no worse off than one that lost a race: what it was doing has
another turn by now.
"""

from __future__ import annotations

from collections.abc import Mapping


class LivenessMonitor:
    """`patience` is how many seconds a count may stand still."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: dict[str, tuple[int, float]] = {}

    def find_dead(self, beats: Mapping[str, int], now: float) -> frozenset[str]:
        """Of the runners with these counts at a moment, those that have been still for too long."""
        self._seen = {
            id: self._seen[id] if id in self._seen and self._seen[id][0] == count else (count, now)
            for id, count in beats.items()
        }
        dead = frozenset(id for id, (_, since) in self._seen.items() if now - since > self._patience)
        for id in dead:
            del self._seen[id]  # one that lives after all begins anew, perhaps with the same count
        return dead
