"""Periodic work of a running server, such as cleaning up after uploads: once at start, then at intervals."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio import to_thread

from adaptry.core.errors import AdaptryError

LOG = logging.getLogger("adaptry.api")

SPOOLS_EVERY = 300.0
UPLOADS_EVERY = 3600.0
TOKEN_USES_EVERY = 60.0
LIMITS_EVERY = 5.0
DOWNLOADS_EVERY = 60.0  # each time, all answers in memory are dropped (`download_counts`)
AUDIT_EVERY = 1.0
INDEX_EVERY = 1.0
CONFIRM_EVERY = 60.0
MEMORY_EVERY = 5.0


@asynccontextmanager
async def periodic_work(*tasks: tuple[Callable[[], object], float]) -> AsyncIterator[None]:
    """Runs each task at its interval in seconds until the block ends. A failed task is tried again. While it
    fails for the same reason, such as a full disk, this is logged once.
    """

    async def now_and_then(task: Callable[[], object], seconds: float) -> None:
        logged: str | None = None
        while True:
            try:
                await to_thread.run_sync(task)
                logged = None
            except AdaptryError as error:
                if error.message != logged:
                    LOG.warning("a periodic task failed and will be retried: %s", error.message)
                logged = error.message
            except Exception:  # one task must not end the others
                LOG.exception("a periodic task failed; it will be retried later")
            await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        for task, seconds in tasks:
            group.start_soon(now_and_then, task, seconds)
        yield
        group.cancel_scope.cancel()
