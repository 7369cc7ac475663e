"""A pool of threads that tenants take in turn, so that one with many slow requests leaves threads to others.

Freed threads go round the tenants that wait, one to each. A tenant gets another thread only while it holds
fewer than a fixed multiple of the threads that are still free (dynamic thresholds, Choudhury and Hahne,
IEEE/ACM Transactions on Networking, 1998). So a tenant alone gets its share of the pool, the other threads
are immediately free for newcomers, and the more tenants there are, the fewer threads each may hold.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

Result = TypeVar("Result")


class FairThreads:
    """At most `total` threads at once; a tenant gets up to `share` of them if no other tenant holds any.

    Only to be used on one event loop.
    """

    def __init__(self, total: int, share: int) -> None:
        assert 0 < share < total, "a share of all threads leaves none to others"
        self._free, self._share, self._rest = total, share, total - share
        self._held: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._threads = anyio.CapacityLimiter(math.inf)

    async def run(self, tenant: str, work: Callable[[], Result]) -> Result:
        """Runs `work` in a thread when it is the tenant's turn. Returns its result or raises its error."""
        await self._acquire(tenant)
        try:
            return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._release(tenant)

    @property
    def held(self) -> int:
        """The number of threads that are in use."""
        return sum(self._held.values())

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a thread."""
        return sum(map(len, self._waiting.values()))

    async def _acquire(self, tenant: str) -> None:
        if tenant not in self._waiting and self._may_take(tenant):
            self._take(tenant)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except BaseException:  # the request was cancelled
            if turn.cancelled():
                self._forget(tenant, turn)
            else:
                self._release(tenant)  # it got the thread at the same moment
            raise

    def _release(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while (following := next(filter(self._may_take, self._waiting), None)) is not None:
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind all others
            if not turn.done():  # or it was cancelled at the same moment
                self._take(following)
                turn.set_result(None)

    def _may_take(self, tenant: str) -> bool:
        return self._held.get(tenant, 0) * self._rest < self._free * self._share

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] = self._held.get(tenant, 0) + 1

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(tenant, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(tenant, None)
