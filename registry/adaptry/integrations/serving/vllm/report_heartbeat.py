"""Keeps a worker's report valid while a refresh takes long, because it fetches or loads large files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger("vllm.adaptry")


@contextlib.asynccontextmanager
async def keep_reporting(report: Callable[[], Awaitable[None]], every: float) -> AsyncIterator[None]:
    """Calls `report` every `every` seconds until the block ends."""
    task = asyncio.create_task(_report_forever(report, every))
    try:
        yield
    finally:
        task.cancel()


async def _report_forever(report: Callable[[], Awaitable[None]], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        try:
            await report()
        except Exception:
            log.exception("reporting to the registry failed")
