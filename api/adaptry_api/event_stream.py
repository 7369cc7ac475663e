"""Event listeners that wait without a thread: new events are read once for all listeners of a process.

Recent events are kept in memory: an event costs one database read, however many listeners there are, and a
few comparisons for each listener. Older events are read from the database, once for all listeners that ask
for the same at the same time, and by a bounded number of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence

from anyio import CapacityLimiter, to_thread

from adaptry.core.errors import AdaptryError
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.events import NameFilter
from adaptry.registry.records import Event, EventBatch
from adaptry.storage.catalog import events
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.events import StoredEvent
from adaptry_api.shutdown import DrainState

LOG = logging.getLogger("adaptry.api")

_MAX_CACHED_EVENTS = 4096
_BATCHES = 64
_MAX_BATCH_BYTES = 64 << 10  # bytes
_RETRY_DELAY = 1.0  # seconds before a failed database read is tried again
_BATCHING_DELAY = 20e-6
"""Seconds to wait for further events after a delivery, for each listener that was woken. A burst then reaches
the listeners in fewer, larger batches, and waking them takes about half of the event loop's time.
"""
_MAX_DELAY = 1.0
_LOOKING, _LOOKING_LOCALLY = 4, 1
"""Threads for reads of events that are not kept. With SQLite they wait for nothing but the interpreter, so
more threads only take it from the event loop, which then takes several times as long for each request.
"""
_TO_END = 5.0  # seconds that a read which has begun may take when the server stops

Identify = Callable[[], Awaitable[Identity]]
"""A listener's identity; looked up before each read and delivery, since tokens expire. Raises
`Unauthenticated`.
"""
_ReadKey = tuple[int, int | None, int, tuple[str, ...]]
"""What a read of older events depends on: the identity (its `id`), the number to begin after, the limit and
the globs.
"""


@dataclass(frozen=True, slots=True)
class _NewEvents:
    """The part of the new events that a listener gets; the events directly follow number `after`."""

    after: int
    batch: EventBatch


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    """A listener between two reads. It is woken only for events that concern it; checking is much cheaper
    than waking.
    """

    identity: Identity
    about: NameFilter
    limit: int
    woken: asyncio.Future[_NewEvents | None]

    def wake(self, offer: _NewEvents | None = None) -> bool:
        """Wakes the listener; returns whether it was still waiting."""
        if self.woken.done():
            return False
        self.woken.set_result(offer)
        return True


class _Selection:
    """The part of new events that each listener gets, selected once for all with the same identity, filter
    and limit.
    """

    def __init__(self, after: int, new_events: Sequence[StoredEvent], epoch: str | None) -> None:
        self._after, self._new_events, self._epoch = after, new_events, epoch
        self._offers: dict[tuple[int, tuple[str, ...], int], _NewEvents | None] = {}

    def wake_if_concerned(self, listener: _Listener) -> bool:
        """Wakes the listener if new events concern it; returns whether it did."""
        # `id` is unique here, since every waiting listener holds its identity; listeners with one token share
        # the object.
        key = (id(listener.identity), listener.about.globs, listener.limit)
        if key not in self._offers:
            self._offers[key] = self._offer_for(listener)
        offer = self._offers[key]
        return offer is not None and listener.wake(offer)

    def _offer_for(self, listener: _Listener) -> _NewEvents | None:
        identity, about = listener.identity, listener.about
        concerning = [one for one in self._new_events if about.matches(one.event)]
        if not any(one.is_visible_to(identity) for one in concerning):
            return None
        batch = events.select_batch(self._new_events, identity, about, self._after, listener.limit)
        return _NewEvents(self._after, batch.model_copy(update={"epoch": self._epoch}))


class EventTexts:
    """The encoded texts of recent events and batches, each for all listeners that get it."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Event, str]] = {}
        self._batches: dict[int, tuple[EventBatch, bytes]] = {}  # by `id`

    def of(self, batch: EventBatch) -> bytes:
        """The text of the events, with a line that moves the listener past events that it may not see and
        keeps the connection alive.
        """
        kept = self._batches.get(id(batch))
        if kept is not None:
            return kept[1]
        end = f": at {batch.seq}\nid: {batch.seq}\n\n"
        text = ("".join(map(self._of_event, batch.items)) + end).encode()
        if len(text) <= _MAX_BATCH_BYTES:  # a larger batch is what a single listener missed
            if len(self._batches) >= _BATCHES:
                self._batches.clear()
            self._batches[id(batch)] = batch, text  # keeps the object alive, so that no other has its `id`
        return text

    def _of_event(self, event: Event) -> str:
        kept = self._kept.get(event.seq)
        if kept is not None and kept[0] is event:
            return kept[1]
        text = f"id: {event.seq}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
        if len(self._kept) >= _MAX_CACHED_EVENTS:
            self._kept.clear()
        self._kept[event.seq] = event, text
        return text


class EventBroadcaster:
    """`next_events` is `Registry.events` for one of many listeners. The first listener starts the reading."""

    def __init__(self, catalog: Catalog, draining: DrainState) -> None:
        self._catalog = catalog
        self._draining = draining
        self.texts = EventTexts()
        self._kept: list[StoredEvent] = []
        self._kept_after: int | None = None  # kept events have larger numbers; None: not reading yet
        self._kept_to = 0
        self._waiting: set[_Listener] = set()
        self._limiter = CapacityLimiter(_LOOKING_LOCALLY if catalog.is_local else _LOOKING)
        self._planned_reads: dict[_ReadKey, asyncio.Task[EventBatch]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()
        self._is_closed = False
        self._epoch: str | None = None

    async def next_events(
        self, identify: Identify, after: int | None, limit: int, wait: float, about: NameFilter
    ) -> EventBatch:
        """Returns new events, or an empty batch after `wait` seconds; returns immediately if the server is
        stopping.
        """
        if self._epoch is None:
            self._epoch = (await to_thread.run_sync(lambda: self._catalog.epoch)).id
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            identity = await identify()
            waiting = _Listener(identity, about, limit, loop.create_future())
            self._waiting.add(waiting)  # before reading, so that no event is missed in between
            try:
                news = await self._read_cached(identity, after, limit, wait, about)
                is_early = after is not None and not after <= news.seq < after + events.SPAN
                left = until - loop.time()
                if news.items and await identify() != identity:
                    continue  # the new events may not concern this listener
                if news.items or is_early or left <= 0 or self._draining.has_begun:
                    return news
                after = news.seq
                timer = loop.call_later(left, waiting.wake)
                offer = await waiting.woken
                timer.cancel()
                # An older offer was made while this listener was still reading.
                if offer and offer.after >= after and await identify() == identity:
                    return offer.batch
            finally:
                self._waiting.discard(waiting)

    def wake(self) -> None:
        """Wakes every listener to read again."""
        for waiting in self._waiting:
            waiting.wake()

    async def close(self) -> None:
        """Returns when no thread reads the catalog any longer, so that it can be closed, or after a
        timeout.
        """
        if not self._reading:
            return
        self._is_closed = True
        self._rung.set()
        await asyncio.wait({self._reading}, timeout=_TO_END)
        self._reading.cancel()  # the database does not answer
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    def _has_cached(self, after: int) -> bool:
        return self._kept_after is not None and self._kept_after <= after <= self._kept_to

    def _kept_since(self, after: int) -> Sequence[StoredEvent]:
        first = bisect_right(self._kept, after, key=lambda stored: stored.event.seq)
        return self._kept[first : first + events.SPAN]

    async def _read_cached(
        self, identity: Identity, after: int | None, limit: int, wait: float, about: NameFilter
    ) -> EventBatch:
        # A call that does not wait must return everything committed before it, including events not yet read
        # here.
        if after is not None and wait and self._has_cached(after):
            return self._of_epoch(events.select_batch(self._kept_since(after), identity, about, after, limit))
        key = id(identity), after, limit, about.globs  # the read holds the identity, so its `id` is unique
        planned = self._planned_reads.get(key)
        if planned is None:
            planned = asyncio.create_task(self._read_for_all(key, identity, about))
            planned.add_done_callback(_note_result)
            self._planned_reads[key] = planned
        return await asyncio.shield(planned)

    async def _read_for_all(self, key: _ReadKey, identity: Identity, about: NameFilter) -> EventBatch:
        """Makes one read for all listeners that request the same events before it begins, such as a fleet
        that reconnects after a restart.
        """
        _, after, limit, _ = key

        def read() -> EventBatch:
            # First, since listeners that ask from now on may know of events that this read does not see.
            self._planned_reads.pop(key, None)
            with self._catalog.read() as tx:
                return self._of_epoch(events.read_batch(tx, identity, after, limit, about))

        return await to_thread.run_sync(read, limiter=self._limiter)

    def _of_epoch(self, batch: EventBatch) -> EventBatch:
        return batch.model_copy(update={"epoch": self._epoch})

    async def _read(self) -> None:
        """Keeps new events in memory while the server runs."""
        loop = asyncio.get_running_loop()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended in the meantime
                loop.call_soon_threadsafe(self._rung.set)

        with self._catalog.notifier.subscribed(ring):
            while not self._is_closed:
                self._rung.clear()
                try:
                    new_events = await to_thread.run_sync(self._next)
                except AdaptryError as error:
                    LOG.warning("events cannot be read: %s", error.message)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._rung.wait(), _RETRY_DELAY)
                    continue
                if new_events:
                    selection = _Selection(self._kept_to, new_events, self._epoch)
                    self._keep(new_events)
                    woken = sum(map(selection.wake_if_concerned, self._waiting))
                    await asyncio.sleep(0)  # they run before this goes on
                    await asyncio.sleep(min(woken * _BATCHING_DELAY, _MAX_DELAY))
                if len(new_events) < events.SPAN and not self._is_closed:
                    await self._rung.wait()

    def _next(self) -> tuple[StoredEvent, ...]:
        with self._catalog.read() as tx:
            if self._kept_after is None:
                self._kept_to = events.newest(tx)
                self._kept_after = self._kept_to
            return events.read_since(tx, self._kept_to)

    def _keep(self, new_events: Sequence[StoredEvent]) -> None:
        self._kept += new_events
        self._kept_to = new_events[-1].event.seq
        if len(self._kept) > 2 * _MAX_CACHED_EVENTS:
            self._kept_after = self._kept[-_MAX_CACHED_EVENTS - 1].event.seq
            self._kept = self._kept[-_MAX_CACHED_EVENTS:]


def _note_result(read: asyncio.Task[EventBatch]) -> None:
    """Marks the error of a read as handled, even if every listener that waited for it is gone."""
    if not read.cancelled():
        read.exception()
