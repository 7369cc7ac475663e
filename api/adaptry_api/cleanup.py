"""Periodic cleanup in a running server: each kind of leftover once at start, then at intervals."""

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


@asynccontextmanager
async def periodic_cleanup(*sweeps: tuple[Callable[[], object], float]) -> AsyncIterator[None]:
    """Does each of the sweeps every so many seconds, until the block ends. A failed one is tried again."""

    async def now_and_then(sweep: Callable[[], object], seconds: float) -> None:
        while True:
            try:
                await to_thread.run_sync(sweep)
            except (OSError, AdaptryError):
                LOG.exception("what is left of uploads cannot be removed")  # and the server serves on
            await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        for sweep, seconds in sweeps:
            group.start_soon(now_and_then, sweep, seconds)
        yield
        group.cancel_scope.cancel()
