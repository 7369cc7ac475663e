"""Limits on requests per minute across several processes of one registry: the sum is limited, within the
tolerance of each process, and no request waits for the database.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from adaptry.core.errors import TooManyRequests, Unavailable
from adaptry.core.identity import Identity
from adaptry.core.quotas import QuotaLimits, QuotaSubject
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.request_use import MAX_DEBT_SECONDS, RequestCharge
from adaptry.storage.catalog.sqlite_counters import FILE
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.runners import wait_until
from adaptry_api import request_count_exchange
from adaptry_api.request_count_exchange import share_requests
from adaptry_api.request_limits import RequestLimits
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

from .test_sweep import serve

ANN = Identity("ann", (), principal=1)
WHO = QuotaSubject("principal", "ann")


@pytest.fixture(params=["sqlite", "postgres"])
def catalogs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Catalog]]:
    """Catalogs of four processes over one database."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    if request.param == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.database()
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Catalog(url))) for _ in range(4)]


class Process:
    """The counts of requests that one server process has."""

    def __init__(self, catalog: Catalog, limit: int, clock: Any = time.monotonic) -> None:
        self.catalog = catalog
        self.limits = RequestLimits(clock)
        self.limits.set_limits({WHO: QuotaLimits(requests=limit)})

    def admits(self) -> bool:
        try:
            self.limits.admit(ANN, None)
        except TooManyRequests:
            return False
        return True

    def share(self) -> int:
        charges = self.limits.take_charges()
        if charges:
            self.limits.note_shared(self.catalog.charge_requests(charges))
        return len(charges)


def test_requests_admitted_by_one_process_count_in_the_others(catalogs: list[Catalog]) -> None:
    first, second = (Process(catalog, 2) for catalog in catalogs[:2])
    assert [first.admits() for _ in range(3)] == [True, True, False]
    assert first.share() == 1
    assert second.admits()  # it has no counts yet
    assert second.share() == 1
    assert not second.admits()


def test_a_flood_at_all_processes_gets_the_limit_and_each_processs_unshared_part(
    catalogs: list[Catalog],
) -> None:
    limit, began = 320, time.monotonic()
    processes = [Process(catalog, limit) for catalog in catalogs]
    admitted = 0
    for _ in range(limit):
        admitted += sum(process.admits() for process in processes)
        for process in processes:
            process.share()
    came_back = math.ceil((time.monotonic() - began) * limit / 60)
    assert limit <= admitted <= limit + len(processes) * (limit // 32) + came_back


def test_requests_above_the_limit_are_deducted_for_at_most_a_minute(catalogs: list[Catalog]) -> None:
    charge = [RequestCharge(WHO, 0.0, 50.0)]
    ahead = [catalogs[0].charge_requests(charge)[WHO] for _ in range(5)]
    assert ahead[0] == pytest.approx(50.0, abs=1.0)
    assert 119.0 < ahead[-1] <= MAX_DEBT_SECONDS == 120.0


def test_a_longer_debt_is_not_stored(tmp_path: Path) -> None:
    with closing(Catalog.open(tmp_path / "catalog.sqlite")) as catalog:
        for _ in range(5):
            catalog.charge_requests([RequestCharge(WHO, 0.0, 50.0)])
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        clock = "(julianday('now') - 2440587.5) * 86400.0"
        (ahead,) = database.execute(f"SELECT idle_at - {clock} FROM request_use").fetchone()
    assert ahead < MAX_DEBT_SECONDS + 1.0


def test_requests_count_from_the_time_at_which_they_were_sent(catalogs: list[Catalog]) -> None:
    found = catalogs[0].charge_requests([RequestCharge(WHO, 3600.0, 50.0)])[WHO]
    assert found < -3000.0


def test_a_quiet_name_causes_no_write(tmp_path: Path) -> None:
    now = 100.0
    with closing(Catalog.open(tmp_path / "catalog.sqlite")) as catalog:
        process = Process(catalog, 320, lambda: now)
        for _ in range(100):  # nine requests in each of that many minutes
            assert all(process.admits() for _ in range(9))
            assert process.share() == 0
            now += 61.0
        assert all(process.admits() for _ in range(10))
        assert process.share() == 1
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_sharing_does_not_wait_for_a_writer_of_the_catalog(catalogs: list[Catalog]) -> None:
    with catalogs[0].write():
        assert WHO in catalogs[1].charge_requests([RequestCharge(WHO, 0.0, 1.0)])


def test_counts_of_requests_do_not_invalidate_caches(tmp_path: Path) -> None:
    with closing(Catalog.open(tmp_path / "catalog.sqlite")) as catalog:
        before = catalog.last_commit()
        catalog.charge_requests([RequestCharge(WHO, 0.0, 1.0)])
        assert catalog.last_commit() == before


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def test_requests_go_on_while_the_counts_are_locked_and_are_shared_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_count_exchange, "_PAUSE_AFTER_FAILURE", 0.0)
    is_failed, is_done = threading.Event(), threading.Event()

    async def scene() -> None:
        with closing(Catalog.open(tmp_path / "catalog.sqlite")) as catalog:
            catalog.charge_requests([RequestCharge(QuotaSubject("namespace", "acme"), 0.0, 0.0)])
            process = Process(catalog, 2)
            async with anyio.create_task_group() as group:
                group.start_soon(
                    share_requests,
                    process.limits,
                    catalog.charge_requests,
                    lambda is_good: (is_done if is_good else is_failed).set(),
                )
                with locked(tmp_path / FILE):
                    with pytest.raises(Unavailable):
                        await anyio.to_thread.run_sync(
                            catalog.charge_requests, [RequestCharge(WHO, 0.0, 0.0)]
                        )
                    assert process.admits()
                    await anyio.to_thread.run_sync(is_failed.wait, 60)
                    assert process.admits()
                    assert not process.admits()  # by its own count
                    assert not is_done.is_set()
                await anyio.to_thread.run_sync(is_done.wait, 60)
                group.cancel_scope.cancel()
            assert is_failed.is_set()
            assert catalog.charge_requests([RequestCharge(WHO, 0.0, 0.0)])[WHO] > 0

    anyio.run(scene)


def shares(server: Server) -> float:
    """The number of times that this server has shared counts."""
    text = server.call("GET", "/metrics").body.decode()
    name = 'adaptry_request_limit_shares_total{result="done"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def check_together(first: Server, second: Server) -> None:
    """Requests that the first server admitted count at the second one. The allowance returns within a
    minute.
    """
    second.admin = first.admin
    ann = first.token("ann", "reader", ("acme",))
    for server in (first, second):
        quota = {"scope": "principal", "name": "ann", "requests": 2}
        assert server.call("PUT", "/api/v1/quotas", quota).status == 200

    def whoami(server: Server) -> int:
        return server.call("GET", "/api/v1/whoami", token=ann).status

    assert [whoami(first) for _ in range(3)] == [200, 200, 429]
    read = [RequestCharge(WHO, 0.0, 0.0)]
    wait_until(lambda: first.catalog.charge_requests(read)[WHO] > 30.0, "both requests are shared")
    assert whoami(second) == 200  # it reserves a few requests for itself
    wait_until(lambda: shares(second) > 0, "the second server shares its request")
    assert whoami(second) == 429


def test_two_processes_on_one_folder_share_a_limit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(data) as one, serve(data) as other:
        servers = [Server(url, data) for url in (one, other)]
        check_together(*servers)
        for server in servers:
            server.close()


def test_two_servers_of_one_postgres_registry_share_a_limit(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = ServerSettings(data=tmp_path / "data", catalog=postgres.database())
    with running_server(settings) as one, running_server(settings) as other:
        check_together(one, other)
