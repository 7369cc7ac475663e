"""The events role of a local registry: reads events, and waits for commits between the reads."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.events import Events, NameFilter, check_events_query
from adaptry.registry.records import EventBatch
from adaptry.storage.catalog import cursors, events
from adaptry.storage.local.context import RegistryContext


@dataclass(frozen=True)
class LocalEvents(Events):
    """The events of a local registry."""

    context: RegistryContext

    def read(
        self, after: int | None = None, limit: int = 50, wait: float = 0.0, adapters: Sequence[str] = ()
    ) -> EventBatch:
        cursors.check_limit(limit)
        check_events_query(after, wait, adapters)
        fitting = NameFilter(adapters)
        if not wait:
            return self._read_batch(after, limit, fitting)
        until = time.monotonic() + wait
        notifier = self.context.catalog.notifier
        with notifier.subscribed():
            while True:
                seen = notifier.notifications
                news = self._read_batch(after, limit, fitting)
                is_behind = after is not None and not after <= news.seq < after + events.SPAN
                if news.items or is_behind or not notifier.wait(seen, until - time.monotonic()):
                    return news
                after = news.seq

    def _read_batch(self, after: int | None, limit: int, names: NameFilter) -> EventBatch:
        with self.context.catalog.read() as tx:
            news = events.read_batch(tx, self.context.identity, after, limit, names)
        return news.model_copy(update={"epoch": self.context.catalog.epoch.id})
