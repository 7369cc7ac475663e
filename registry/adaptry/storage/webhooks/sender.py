"""The sender: one thread that creates messages for new events, and one thread for each webhook with messages
due.

So a receiver that is slow or dead only delays its own messages. Webhooks take turns if there are more than
threads (`delivery_threads`). Any number of processes may run a sender on one catalog.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from adaptry.core.errors import AdaptryError
from adaptry.core.outgoing_requests.connector import GuardedConnector
from adaptry.storage.catalog import webhook_deliveries, webhooks
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.webhooks.delivery import deliver_next
from adaptry.storage.webhooks.delivery_threads import CONCURRENCY, DeliveryThreads

LOG = logging.getLogger("adaptry.webhooks")

DELIVERY_RETENTION = timedelta(days=30)
"""How long messages stay in the log."""
_POLL = 5.0  # seconds, at most, until a message that is due again is sent
_RETRY_DELAY = 0.25
"""Minimum seconds between two queries for webhooks while there are none: each commit would cause one."""
_PRUNE_EVERY = 600.0
_PRUNED = 1000


def utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def sending_webhooks(
    catalog: Catalog, connector: GuardedConnector, clock: Callable[[], datetime] = utc_now
) -> Iterator[None]:
    """Runs a sender during the block. A message in flight at its end is sent again later, with the same id,
    if no outcome was stored in time.
    """
    sender = WebhookSender(catalog, connector, clock)
    thread = threading.Thread(target=sender.run, name="adaptry-webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sender.stop()
        thread.join()


class WebhookSender:
    """`run` works until `stop`; `run_round` is one pass."""

    def __init__(
        self,
        catalog: Catalog,
        connector: GuardedConnector,
        clock: Callable[[], datetime] = utc_now,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._catalog = catalog
        self._connector = connector
        self._clock = clock
        self._threads = DeliveryThreads(self._deliver_next, concurrency)
        self._is_stopping = threading.Event()
        self._has_webhooks = True
        self._pruned_at = -_PRUNE_EVERY

    def run(self) -> None:
        notifier = self._catalog.notifier
        with notifier.subscribed():
            while not self._is_stopping.is_set():
                seen, wait = notifier.notifications, _POLL
                try:
                    wait = self.run_round()
                    self._prune_now_and_then()
                except AdaptryError as error:  # the database is unreachable; retried later
                    LOG.warning("webhooks wait: %s", error.message)
                except Exception:
                    LOG.exception("webhooks failed; they are tried again")
                if not self._has_webhooks:
                    self._is_stopping.wait(_RETRY_DELAY)
                notifier.wait(seen, wait)
        self._threads.join()

    def stop(self) -> None:
        """Waits for deliveries in flight, a few seconds at most."""
        self._is_stopping.set()
        self._threads.stop()
        self._catalog.notifier.notify()

    def run_round(self) -> float:
        """Creates messages for new events, and starts due deliveries. Returns the seconds until the next is
        due.
        """
        if self._catalog.has_prepared:  # every commit with events comes here
            with self._catalog.read_prepared() as reads:
                self._has_webhooks = webhooks.is_any_enabled(reads)
            if not self._has_webhooks:
                return _POLL
        now = self._clock()
        with self._catalog.read() as tx:
            found = webhook_deliveries.find_new(tx, now)
        if found:
            with self._catalog.write() as tx:
                for messages in found:
                    webhook_deliveries.add_new(tx, messages, now)
            return 0.0
        with self._catalog.read() as tx:
            listed = [one.info for one in webhooks.enabled(tx, now)]
            due = [(info, at) for info in listed if (at := webhook_deliveries.next_due(tx, info.id))]
        for info, at in due:
            if at <= now:
                self._threads.start(info.id, is_failing=info.failures > 0)
        later = [(at - now).total_seconds() for _, at in due if at > now]
        return min([_POLL, *later])

    def wait_until_idle(self) -> None:
        """Returns when no message is being sent."""
        self._threads.join()

    def _deliver_next(self, webhook: int) -> bool:
        return deliver_next(self._catalog, self._connector, webhook, self._clock)

    def _prune_now_and_then(self) -> None:
        if time.monotonic() - self._pruned_at < _PRUNE_EVERY:
            return
        self._pruned_at = time.monotonic()
        before = self._clock() - DELIVERY_RETENTION
        while True:
            with self._catalog.write() as tx:
                if webhook_deliveries.prune(tx, before, _PRUNED) < _PRUNED:
                    return
