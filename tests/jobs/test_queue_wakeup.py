"""The job engine's queue threads look for work as soon as some may be available."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import dbos
import pytest
from dbos import _queue

from adaptry.jobs.queue_wakeup import QueueWakeup

LONG = 600.0


class Watched(threading.Event):
    """Notes when a thread begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.is_awaited = threading.Event()

    def is_set(self) -> bool:
        self.is_awaited.set()
        return super().is_set()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "queue-worker-any") as pool:
        yield pool


def waiting(thread: ThreadPoolExecutor, event: Watched) -> Future[bool]:
    """Starts a wait in a thread; returns when it has begun."""
    event.is_awaited.clear()
    wait = thread.submit(event.wait, LONG)
    assert event.is_awaited.wait(LONG)
    return wait


def test_a_thread_that_works_when_it_is_woken_does_not_wait_afterwards(thread: ThreadPoolExecutor) -> None:
    wakeup, event = QueueWakeup(), Watched()
    wakeup.extend(event)
    assert thread.submit(event.wait, 0).result() is False
    wakeup.wake()
    assert waiting(thread, event).result(LONG) is False


def test_a_wait_ends_at_its_timeout(thread: ThreadPoolExecutor) -> None:
    wakeup, event = QueueWakeup(), Watched()
    wakeup.extend(event)
    assert thread.submit(event.wait, 0.01).result(LONG) is False


def test_setting_the_event_ends_every_wait(thread: ThreadPoolExecutor) -> None:
    wakeup, event = QueueWakeup(), Watched()
    wakeup.extend(event)
    wait = waiting(thread, event)
    event.set()
    assert wait.result(LONG) is True
    assert event.wait(LONG) is True


def test_a_thread_that_waits_is_woken_and_checks_once_more_before_its_interval(
    thread: ThreadPoolExecutor,
) -> None:
    wakeup, event = QueueWakeup(), Watched()
    wakeup.extend(event)
    wait = waiting(thread, event)
    wakeup.wake()
    assert wait.result(LONG) is False
    assert waiting(thread, event).result(LONG) is False


def test_other_threads_are_not_woken(thread: ThreadPoolExecutor) -> None:
    wakeup, event = QueueWakeup(), Watched()
    wakeup.extend(event)
    with ThreadPoolExecutor(1) as other:
        other_wait = other.submit(event.wait, LONG)
        wakeup.wake()
        assert waiting(thread, event).result(LONG) is False
        assert not other_wait.done()
        event.set()
        assert other_wait.result(LONG) is True


def test_the_engine_has_the_events_that_are_extended() -> None:
    source = inspect.getsource(dbos.DBOS)
    assert "self.background_thread_stop_events: List[threading.Event]" in source
    assert "target=queue_thread, args=(evt, self)" in source
    assert 'name=f"queue-worker-{' in inspect.getsource(_queue.queue_thread)
