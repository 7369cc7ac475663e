"""Upload slots: limits on the bodies that a server receives at once, in total and for one tenant.

A body occupies its slot from the first byte to the last, even if it arrives slowly. One tenant gets at most a
quarter of the slots, so that its slow clients cannot block others; its further requests wait, and none of
their bytes are read.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from adaptry.core.errors import Busy

Holder = tuple[str, ...]
"""The namespaces that a caller may write to: callers with the same namespaces share slots."""

WAIT_SECONDS = 45.0
"""Seconds to wait for a slot: less than the 60 seconds after which clients give up sending."""
_SHARES = 4


class UploadSlots:
    """`total` slots; one holder gets at most a quarter of them, and at least one."""

    def __init__(self, total: int) -> None:
        self._all = anyio.CapacityLimiter(total)
        self._share = max(1, total // _SHARES)
        self._of: dict[Holder, anyio.CapacityLimiter] = {}
        self._threads = anyio.CapacityLimiter(math.inf)

    @asynccontextmanager
    async def slot(self, holder: Holder) -> AsyncIterator[anyio.CapacityLimiter]:
        """Holds a slot while the block runs; yields the limiter for the thread that works in it.

        Raises `Busy` if none becomes free within `WAIT_SECONDS`.
        """
        own = self._of.setdefault(holder, anyio.CapacityLimiter(self._share))
        body = object()
        held: list[anyio.CapacityLimiter] = []
        try:
            limiters = own, self._all
            with suppress(anyio.WouldBlock):  # waiting would yield to the event loop even for a free slot
                for limiter in limiters:
                    limiter.acquire_on_behalf_of_nowait(body)
                    held.append(limiter)
            if len(held) < 2:
                with anyio.move_on_after(WAIT_SECONDS):
                    for limiter in limiters[len(held) :]:
                        await limiter.acquire_on_behalf_of(body)
                        held.append(limiter)
            if len(held) < 2:
                raise Busy(
                    "this server is already receiving its maximum number of uploads; try again in a moment"
                )
            yield self._threads
        finally:
            for limiter in held:
                limiter.release_on_behalf_of(body)
            statistics = own.statistics()
            if not statistics.borrowed_tokens and not statistics.tasks_waiting:
                self._of.pop(holder, None)
