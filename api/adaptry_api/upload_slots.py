"""Upload slots: how many bodies a server receives at once, and how many of them for one tenant.

A body holds its slot from the first byte to the last, however slowly it arrives. So that slow clients of one
tenant cannot block the others, one tenant gets a quarter of the slots at most; the rest of its requests wait
for those, without a byte of them being read.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from adaptry.core.errors import Busy

Holder = tuple[str, ...]
"""The namespaces that a caller may write to: whoever has the same shares their slots."""

WAIT_SECONDS = 45.0
"""Shorter than any client waits until what it sends is taken (60 seconds)."""
_SHARES = 4


class UploadSlots:
    """`total` slots, of which one holder gets a quarter, and one at least."""

    def __init__(self, total: int) -> None:
        self._all = anyio.CapacityLimiter(total)
        self._share = max(1, total // _SHARES)
        self._of: dict[Holder, anyio.CapacityLimiter] = {}
        self._threads = anyio.CapacityLimiter(math.inf)

    @asynccontextmanager
    async def slot(self, holder: Holder) -> AsyncIterator[anyio.CapacityLimiter]:
        """A slot for as long as the block lasts, with the limiter for the thread that works in it.

        Raises `Busy` where none came free within `WAIT_SECONDS`.
        """
        own = self._of.setdefault(holder, anyio.CapacityLimiter(self._share))
        body = object()
        held: list[anyio.CapacityLimiter] = []
        try:
            with anyio.move_on_after(WAIT_SECONDS):
                for limiter in (own, self._all):
                    await limiter.acquire_on_behalf_of(body)
                    held.append(limiter)
            if len(held) < 2:
                raise Busy(
                    "this server is receiving as many uploads as it can at once; try again in a moment"
                )
            yield self._threads
        finally:
            for limiter in held:
                limiter.release_on_behalf_of(body)
            statistics = own.statistics()
            if not statistics.borrowed_tokens and not statistics.tasks_waiting:
                self._of.pop(holder, None)
