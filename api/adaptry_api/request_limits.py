"""Limits on requests per minute of a principal or namespace, for this server process.

Each process counts separately, in memory, on the event loop, without a lock and without reading the catalog.
After a quiet minute, a caller may send a minute's requests as a burst; afterwards the allowance refills
evenly. The arithmetic is the generic cell rate algorithm (ITU-T I.371): one number for each name, the time at
which it would be idle.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from adaptry.core.errors import TooManyRequests
from adaptry.core.identity import Identity
from adaptry.core.quotas import EVERY, UNLIMITED, QuotaLimits, QuotaSubject

_MINUTE = 60.0
_ROUNDING = 1e-6  # seconds that sums of intervals may differ by
_REMEMBERED = 1 << 14
"""Maximum number of names whose requests are counted; the least recent one is dropped first."""


class RequestLimits:
    """`admit` counts a request. Only to be called on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits: Mapping[QuotaSubject, int] = {}
        self._idle_at: OrderedDict[QuotaSubject, float] = OrderedDict()

    def set_limits(self, limits: Mapping[QuotaSubject, QuotaLimits]) -> None:
        """What is set, as the catalog has it; may be called by any thread."""
        self._limits = {who: one.requests for who, one in limits.items() if one.requests is not None}

    def admit(self, identity: Identity, namespace: str | None) -> None:
        """Counts a principal's request, and the namespace that its address names. Raises `TooManyRequests`.

        A namespace is charged only for requests of its members, so that others cannot use up its limit.
        """
        if not self._limits:
            return
        caller = QuotaSubject("principal", identity.name)
        if (limit := self._limit(caller)) < UNLIMITED:
            self._count(caller, limit)
        if namespace is None:
            return
        place = QuotaSubject("namespace", namespace)
        if (limit := self._limit(place)) < UNLIMITED and identity.readable_names(namespace):
            self._count(place, limit)

    def _limit(self, who: QuotaSubject) -> int:
        return self._limits.get(who, self._limits.get(QuotaSubject(who.scope, EVERY), UNLIMITED))

    def _count(self, who: QuotaSubject, limit: int) -> None:
        now, interval = self._clock(), _MINUTE / limit
        idle_at = max(self._idle_at.pop(who, now), now)
        wait = idle_at + interval - now - _MINUTE
        is_over = wait > _ROUNDING
        self._idle_at[who] = idle_at if is_over else idle_at + interval
        if len(self._idle_at) > _REMEMBERED:
            self._idle_at.popitem(last=False)
        if is_over:
            raise TooManyRequests(
                f"{who} may send {limit:,} requests a minute; wait {math.ceil(wait)} s and try again, or ask"
                f" an administrator for more (`adaptry quota set {who.arguments} --requests N`)",
                wait,
            )
