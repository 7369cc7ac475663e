"""Threads that send messages: one for each webhook that is being served, 64 at most.

While others wait, a webhook gives its thread up after each message and queues again. At most half of the
threads are for receivers whose last try failed or took more than a second: otherwise 64 receivers that answer
just in time, and always have messages due, would hold all threads and delay every other receiver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from adaptry.core.errors import AdaptryError

LOG = logging.getLogger("adaptry.webhooks")
CONCURRENCY = 64
_SLOW_DELIVERY_SECONDS = 1.0


class DeliveryThreads:
    """`deliver_next` sends a webhook's next message, and returns whether one was due."""

    def __init__(self, deliver_next: Callable[[int], bool], concurrency: int = CONCURRENCY) -> None:
        self._deliver_next = deliver_next
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._busy: dict[int, threading.Thread] = {}
        self._hindering: set[int] = set()  # members of `_busy` that count towards the half
        self._waiting: dict[int, bool] = {}  # in order; the value: whether the last attempt failed
        self._slow: set[int] = set()
        self._is_stopping = False

    def start(self, webhook: int, *, is_failing: bool) -> None:
        """Serves the webhook as soon as a thread is free; does nothing if it is being served already."""
        with self._lock:
            if webhook not in self._busy:
                self._waiting.setdefault(webhook, is_failing)
                self._start_waiting()

    def stop(self) -> None:
        """Ends each thread after its message."""
        with self._lock:
            self._is_stopping = True
            self._waiting.clear()

    def join(self) -> None:
        """Returns when no message is being sent."""
        while threads := self._threads():
            for thread in threads:
                thread.join()

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._busy.values())

    def _start_waiting(self) -> None:
        """Starts the waiting webhooks that may start, the one that has waited longest first. The caller holds
        the lock.
        """
        for webhook, is_failing in list(self._waiting.items()):
            if self._is_stopping or len(self._busy) >= self._concurrency:
                return
            if not self._has_room(webhook, is_failing):
                continue
            name = f"adaptry-webhook-{webhook}"
            thread = threading.Thread(target=self._serve, args=(webhook,), name=name, daemon=True)
            thread.start()  # raises, with the webhook still waiting, if the system has no thread left
            del self._waiting[webhook]
            self._busy[webhook] = thread
            if self._is_slow(webhook, is_failing):
                self._hindering.add(webhook)

    def _is_slow(self, webhook: int, is_failing: bool) -> bool:
        return is_failing or webhook in self._slow

    def _has_room(self, webhook: int, is_failing: bool) -> bool:
        return not self._is_slow(webhook, is_failing) or len(self._hindering) < max(1, self._concurrency // 2)

    def _serve(self, webhook: int) -> None:
        """Sends the webhook's due messages, one after the other, until another webhook needs the thread."""
        has_more = False
        try:
            has_more = self._deliver(webhook)
        except AdaptryError as error:
            LOG.warning("webhook %d waits: %s", webhook, error.message)
        except Exception:
            LOG.exception("webhook %d failed; it is tried again", webhook)
        finally:
            with self._lock:
                del self._busy[webhook]
                self._hindering.discard(webhook)
                if has_more and not self._is_stopping:
                    self._waiting.setdefault(webhook, False)  # a failure is sent again later
                self._start_waiting()

    def _deliver(self, webhook: int) -> bool:
        """Sends the webhook's next message; returns whether more messages may be due."""
        while not self._is_stopping:
            began = time.monotonic()
            if not self._deliver_next(webhook):
                return False
            is_slow = time.monotonic() - began > _SLOW_DELIVERY_SECONDS
            with self._lock:
                (self._slow.add if is_slow else self._slow.discard)(webhook)
                if is_slow:
                    self._hindering.add(webhook)
                if self._is_needed_by_others(webhook):
                    return True
        return True

    def _is_needed_by_others(self, webhook: int) -> bool:
        """Whether a waiting webhook could start in place of this one."""
        return any(
            webhook in self._hindering or self._has_room(other, is_failing)
            for other, is_failing in self._waiting.items()
        )
