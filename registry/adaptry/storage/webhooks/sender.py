"""The sender: one thread that creates messages for new events, and one thread for each webhook with messages
due.

So a receiver that is slow or dead only delays its own messages. At most 64 webhooks are served at once, and
at most half of them are ones whose last try failed. Any number of processes may run a sender on one catalog.
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

LOG = logging.getLogger("adaptry.webhooks")

KEEP = timedelta(days=30)
"""How long messages stay in the log."""
_AT_ONCE = 64
_POLL = 5.0  # seconds, at most, until a message that is due again is sent
_PAUSE = 0.25
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
        self, catalog: Catalog, connector: GuardedConnector, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._catalog = catalog
        self._connector = connector
        self._clock = clock
        self._lock = threading.Lock()
        self._busy: dict[int, threading.Thread] = {}
        self._failing: set[int] = set()  # those of `_busy` whose last try failed
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
                    self._is_stopping.wait(_PAUSE)
                notifier.wait(seen, wait)
        for thread in self._threads():
            thread.join()

    def stop(self) -> None:
        """Waits for deliveries in flight, a few seconds at most."""
        self._is_stopping.set()
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
                self._start(info.id, is_failing=info.failures > 0)
        later = [(at - now).total_seconds() for _, at in due if at > now]
        return min([_POLL, *later])

    def wait_until_idle(self) -> None:
        """Returns when no message is being sent."""
        for thread in self._threads():
            thread.join()

    def _start(self, webhook: int, *, is_failing: bool) -> None:
        with self._lock:
            is_full = len(self._busy) >= _AT_ONCE or (is_failing and len(self._failing) >= _AT_ONCE // 2)
            if webhook in self._busy or is_full or self._is_stopping.is_set():
                return
            thread = threading.Thread(
                target=self._deliver, args=(webhook,), name=f"adaptry-webhook-{webhook}", daemon=True
            )
            self._busy[webhook] = thread
            if is_failing:
                self._failing.add(webhook)
            thread.start()

    def _deliver(self, webhook: int) -> None:
        """Sends one webhook's due messages, one after the other."""
        try:
            while not self._is_stopping.is_set():
                if not deliver_next(self._catalog, self._connector, webhook, self._clock):
                    return
        except AdaptryError as error:
            LOG.warning("webhook %d waits: %s", webhook, error.message)
        except Exception:
            LOG.exception("webhook %d failed; it is tried again", webhook)
        finally:
            with self._lock:
                del self._busy[webhook]
                self._failing.discard(webhook)

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._busy.values())

    def _prune_now_and_then(self) -> None:
        if time.monotonic() - self._pruned_at < _PRUNE_EVERY:
            return
        self._pruned_at = time.monotonic()
        before = self._clock() - KEEP
        while True:
            with self._catalog.write() as tx:
                if webhook_deliveries.prune(tx, before, _PRUNED) < _PRUNED:
                    return
