"""Limits on the requests per minute of a principal or a namespace, for a whole registry.

Each process decides by itself, in memory, on the event loop: no request waits for a lock, the disk or the
database. After a quiet minute, a caller may send a minute's requests as a burst; afterwards the allowance
refills evenly. The arithmetic is the generic cell rate algorithm (ITU-T I.371): one number for each name, the
time at which it would be idle.

Processes of one registry exchange their counts afterwards (`request_count_exchange`). A name is `due` when
it has sent this process 1/32 of its limit that the others do not know of; fewer in a minute are never shared,
so that a name that sends few requests causes no write.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice

from adaptry.core.errors import TooManyRequests
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.quotas import EVERY, UNLIMITED, QuotaLimits, QuotaSubject
from adaptry.storage.catalog.request_use import MAX_BATCH, RequestCharge

_MINUTE = 60.0
_ROUNDING = 1e-6  # seconds that sums of intervals may differ by
_UNSHARED = 32  # a process keeps this fraction of a limit to itself
_MAX_ENTRIES = 1 << 14
"""Maximum number of names whose requests are counted; the least recent one is dropped first."""


@dataclass(slots=True)
class _Count:
    """The requests of a name: all are paid for at `idle_at`. Other processes do not know of the last
    `unshared` ones, which began at `since`; `sent` of them are on their way there.
    """

    idle_at: float
    since: float
    unshared: int = 0
    sent: int = 0
    sent_at: float = 0.0


class RequestLimits:
    """`admit` counts a request. Only to be called on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits: Mapping[QuotaSubject, int] = {}
        self._counts: OrderedDict[QuotaSubject, _Count] = OrderedDict()
        self._due: dict[QuotaSubject, None] = {}
        self.on_due: Callable[[], object] = lambda: None
        """Called when there is a charge to take."""

    @property
    def is_limiting(self) -> bool:
        """Whether any limit is set."""
        return bool(self._limits)

    def set_limits(self, limits: Mapping[QuotaSubject, QuotaLimits]) -> None:
        """Replaces the limits with those in the catalog; may be called by any thread."""
        self._limits = {subject: one.requests for subject, one in limits.items() if one.requests is not None}

    def admit(self, identity: Identity, namespace: str | None) -> None:
        """Counts a principal's request, and the namespace that its address names. Raises `TooManyRequests`.

        A namespace is charged only for requests of callers with a right that names it, so that no one else
        can use up its limit: also not administrators, auditors and mirrors, who may read every namespace.
        """
        if not self._limits:
            return
        caller = QuotaSubject("principal", identity.name)
        if (limit := self._limit(caller)) < UNLIMITED:
            self._count(caller, limit)
        if namespace is None:
            return
        place = QuotaSubject("namespace", namespace)
        if (limit := self._limit(place)) < UNLIMITED and identity.is_named_in(namespace):
            self._count(place, limit)

    def take_charges(self) -> list[RequestCharge]:
        """Returns the charges that other processes should know by now. They stay due until `note_shared`."""
        now, charges = self._clock(), []
        for subject in list(islice(self._due, MAX_BATCH)):
            count = self._counts[subject]
            count.sent, count.sent_at = count.unshared, now
            charges.append(
                RequestCharge(subject, now - count.since, count.sent * _MINUTE / self._limit(subject))
            )
        return charges

    def note_shared(self, ahead: Mapping[QuotaSubject, float]) -> None:
        """Records that the last charges are shared. `ahead` has the seconds until all requests of a name,
        including those to other processes, are paid for.
        """
        now = self._clock()
        for subject, seconds in ahead.items():
            self._due.pop(subject, None)
            if (count := self._counts.get(subject)) is None:
                continue
            limit = self._limit(subject)
            count.unshared, count.since, count.sent = count.unshared - count.sent, count.sent_at, 0
            count.idle_at = max(count.idle_at, now + seconds + count.unshared * _MINUTE / limit)
            self._note_due(subject, count, limit)

    def _limit(self, subject: QuotaSubject) -> int:
        return self._limits.get(subject, self._limits.get(QuotaSubject(subject.scope, EVERY), UNLIMITED))

    def _count(self, subject: QuotaSubject, limit: int) -> None:
        now, interval = self._clock(), _MINUTE / limit
        count = self._counts.get(subject)
        if count is None:
            count = self._counts[subject] = _Count(now, now)
        self._counts.move_to_end(subject)
        idle_at = max(count.idle_at, now)
        wait = idle_at + interval - now - _MINUTE
        is_over = wait > _ROUNDING
        if not is_over:
            count.idle_at = idle_at + interval
            if now - count.since > _MINUTE and subject not in self._due:
                count.unshared, count.since = 0, now
            count.unshared += 1
            self._note_due(subject, count, limit)
        if len(self._counts) > _MAX_ENTRIES:
            forgotten, _ = self._counts.popitem(last=False)
            self._due.pop(forgotten, None)
        if is_over:
            raise TooManyRequests(
                f"{subject} may send {limit:,} requests a minute; wait {math.ceil(wait)} s and try again,"
                f" or ask an administrator for more (`adaptry quota set {subject.arguments} --requests N`)",
                wait,
            )

    def _note_due(self, subject: QuotaSubject, count: _Count, limit: int) -> None:
        if count.unshared >= max(1, limit // _UNSHARED) and subject not in self._due:
            self._due[subject] = None
            self.on_due()
