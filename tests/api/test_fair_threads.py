"""Threads that tenants take in turn: who waits, who is next, and what happens after cancelled requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import pytest

from adaptry.core.identity import ANONYMOUS, Identity
from adaptry_api.fair_threads import FairThreads
from adaptry_api.route_threads import tenant_of


class Work:
    """Work of tenants that lasts until it is ended; `started` lists their names in order."""

    def __init__(self, pool: FairThreads) -> None:
        self.pool = pool
        self.started: list[str] = []
        self._ends: dict[str, list[threading.Event]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def add(self, tenants: Iterable[str]) -> None:
        for tenant in tenants:
            self.tasks.append(
                asyncio.create_task(self.pool.run(tenant, lambda tenant=tenant: self._do(tenant)))
            )
        await self.settle()

    def _do(self, tenant: str) -> None:
        end = threading.Event()
        self._ends.setdefault(tenant, []).append(end)
        self.started.append(tenant)
        assert end.wait(60)

    async def end(self, tenant: str) -> None:
        ended = self.pool.held + self.pool.waiting - 1
        self._ends[tenant].pop(0).set()
        while self.pool.held + self.pool.waiting != ended:
            await asyncio.sleep(0)
        await self.settle()

    async def settle(self) -> None:
        """Waits until all work that holds a thread has started."""
        await asyncio.sleep(0)
        while sum(map(len, self._ends.values())) != self.pool.held:
            await asyncio.sleep(0)

    async def end_all(self) -> None:
        while self.pool.held:
            for tenant in [tenant for tenant, ends in self._ends.items() for _ in ends]:
                await self.end(tenant)
        await asyncio.gather(*self.tasks, return_exceptions=True)


def run(claim: Callable[[Work], Awaitable[None]], total: int, share: int) -> None:
    async def main() -> None:
        work = Work(FairThreads(total, share))
        try:
            await claim(work)
        finally:
            await work.end_all()
        assert (work.pool.held, work.pool.waiting) == (0, 0)

    asyncio.run(main())


@pytest.mark.parametrize(("total", "share"), [(24, 20), (6, 4), (40, 10)])
def test_a_tenant_alone_gets_its_share_and_the_rest_is_free_at_once_for_others(
    total: int, share: int
) -> None:
    async def claim(work: Work) -> None:
        await work.add(["acme"] * (total + 5))
        assert work.started == ["acme"] * share
        await work.add(["beta"])
        assert work.started[share:] == ["beta"]

    run(claim, total, share)


def test_no_number_of_flooding_tenants_takes_the_last_thread_while_each_has_several() -> None:
    async def claim(work: Work) -> None:
        for tenant in ("one", "two", "three"):
            await work.add([tenant] * 50)
        while max(work.started.count(tenant) for tenant in ("one", "two", "three")) < 30:
            for tenant in ("one", "two", "three"):
                await work.end(tenant)
        await work.add(["newcomer"])
        assert work.started[-1] == "newcomer"

    run(claim, 24, 20)


def test_freed_threads_go_round_the_tenants_that_wait_whatever_each_has_queued() -> None:
    async def claim(work: Work) -> None:
        await work.add(["acme", "acme", "beta"])  # 3 threads of 3
        await work.add(["acme"] * 9 + ["beta"] + ["gamma"])
        del work.started[:]
        for tenant in ("acme", "beta", "acme"):
            await work.end(tenant)
        assert set(work.started) == {"acme", "beta", "gamma"}

    run(claim, 3, 2)


def test_cancelled_requests_give_up_their_place_and_leave_no_count() -> None:
    async def claim(work: Work) -> None:
        await work.add(["acme"] * 4)  # two run
        for waiting in work.tasks[2:]:
            waiting.cancel()
        await asyncio.gather(*work.tasks[2:], return_exceptions=True)
        assert (work.pool.held, work.pool.waiting) == (2, 0)
        await work.add(["acme"])
        await work.end("acme")
        assert work.started == ["acme"] * 3

    run(claim, 3, 2)


def test_a_request_cancelled_in_the_moment_of_its_turn_passes_the_thread_on() -> None:
    async def claim(work: Work) -> None:
        pool = FairThreads(2, 1)
        running, end = threading.Event(), threading.Event()

        def first() -> None:
            running.set()
            assert end.wait(60)

        tasks = [asyncio.create_task(pool.run("acme", first))]
        tasks += [asyncio.create_task(pool.run("acme", lambda: None)) for _ in range(3)]
        while not running.is_set() or pool.waiting < 3:
            await asyncio.sleep(0)
        tasks[0].add_done_callback(lambda _: tasks[1].cancel())  # its turn is set, but it has not resumed
        end.set()
        with suppress(asyncio.CancelledError):
            await tasks[1]
        await asyncio.gather(tasks[0], *tasks[2:])
        assert (pool.held, pool.waiting) == (0, 0)

    run(claim, 3, 2)


@pytest.mark.parametrize(
    ("identity", "namespace", "tenant"),
    [
        (Identity.with_role("alice", "viewer", ("acme",)), "acme", "acme"),
        (Identity.with_role("alice", "viewer", ("acme/tone",)), "acme", "acme"),
        (Identity.with_role("alice", "viewer", ("acme",)), "other", "user alice"),
        (Identity.with_role("scanner", "viewer", ("*",)), "acme", "user scanner"),
        (Identity.with_role("scanner", "viewer", ("ac*",)), "acme", "user scanner"),
        (Identity.with_role("acme", "viewer", ("other",)), "acme", "user acme"),
        (Identity.with_role("acme/ci", "publisher", ("acme",)), "", "acme"),
        (ANONYMOUS, "acme", "user anonymous"),
    ],
)
def test_a_request_counts_towards_the_namespace_in_its_address_only_for_callers_with_a_right_that_names_it(
    identity: Identity, namespace: str, tenant: str
) -> None:
    scope = {"state": {"identity": identity}, "path_params": {"namespace": namespace}}
    assert tenant_of(scope) == tenant
