"""The log of a server's periodic work that fails."""

from __future__ import annotations

import anyio
import pytest
from anyio import from_thread

from adaptry.core.errors import StorageFull
from adaptry_api.cleanup import periodic_work

FULL = StorageFull("no space left for the registry's database")


def test_a_task_that_keeps_failing_is_logged_once_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = [FULL, FULL, FULL, None, FULL, FULL]

    async def run() -> None:
        is_over = anyio.Event()

        def task() -> None:
            if not outcomes:
                from_thread.run_sync(is_over.set)
            elif (outcome := outcomes.pop(0)) is not None:
                raise outcome

        async with periodic_work((task, 0.0)):
            await is_over.wait()

    anyio.run(run)

    assert [one.levelname for one in caplog.records] == ["WARNING"] * 2
    assert {one.getMessage() for one in caplog.records} == {
        f"a periodic task failed and will be retried: {FULL.message}"
    }
    assert "Traceback" not in caplog.text


def test_an_unexpected_error_of_a_task_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        is_over, numbers = anyio.Event(), iter(range(2))

        def task() -> None:
            if next(numbers, None) is None:
                from_thread.run_sync(is_over.set)
                return
            raise ZeroDivisionError

        async with periodic_work((task, 0.0)):
            await is_over.wait()

    anyio.run(run)

    assert [one.exc_info is not None for one in caplog.records] == [True, True]
