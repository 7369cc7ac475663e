"""PostgreSQL connections that break around a COMMIT, and servers that fail over: acknowledged changes exist
exactly once.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.contract.fixtures import MakeRegistry
from adaptry.testing.fault_proxy import run_proxy
from adaptry.testing.ports import free_ports
from adaptry.testing.postgres import NEVER_VACUUMS, PostgresServer, postgres_server
from adaptry.testing.registry_contract import RegistryContract
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

from ..topology.trainer import patiently
from .commit_proxy import CommitProxy, When

TONE = AdapterName.parse("acme/tone")


@dataclass
class Ground:
    """A server whose database is behind a proxy, and the database itself."""

    server: Server
    proxy: CommitProxy
    postgres: PostgresServer
    name: str
    url: str

    @property
    def registry(self) -> HttpRegistry:
        return self.server.registry()


@contextmanager
def behind_a_proxy(folder: Path, postgres: PostgresServer, port: int) -> Iterator[Ground]:
    name = postgres.create_migrated()
    with run_proxy(CommitProxy("127.0.0.1", port)) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
        with running_server(ServerSettings(data=folder, catalog=url)) as server:
            yield Ground(server, proxy, postgres, name, url)


@pytest.fixture(scope="session")
def listening(postgres: PostgresServer) -> Iterator[tuple[PostgresServer, int]]:
    """A PostgreSQL server that answers at a port. (The fixture `postgres` skips the test if PostgreSQL is not
    installed.)
    """
    (port,) = free_ports(1)
    with postgres_server(port, settings=NEVER_VACUUMS) as server:
        yield server, port


@pytest.fixture
def ground(tmp_path: Path, listening: tuple[PostgresServer, int]) -> Iterator[Ground]:
    with behind_a_proxy(tmp_path / "data", *listening) as found:
        yield found


def log_once(ground: Ground, number: int) -> None:
    """Logs a value, with the same key in every try."""
    path, body = f"/api/v1/adapters/{TONE}/versions/{number}/metrics", {"metrics": {"loss": float(number)}}
    end = time.monotonic() + 60
    while True:
        answer = ground.server.call("POST", path, body, headers={"Idempotency-Key": f"loss-{number}"})
        if answer.status == 204:
            return
        assert (answer.status, time.monotonic() < end) == (503, True), answer.body
        time.sleep(0.02)


def move(registry: HttpRegistry, number: int) -> None:
    """Moves the alias to that version; reads it again if it is unknown whether the move happened or may still
    happen.
    """
    to = registry.versions.get(Ref.parse(f"{TONE}@{number}")).digest
    while True:
        seen = next((one for one in registry.aliases.list(TONE) if one.alias == "prod"), None)
        if seen and seen.digest == to:
            return
        with contextlib.suppress(Unavailable, Conflict):
            registry.aliases.move(TONE, "prod", to, seen.generation if seen else None)


def one_round(ground: Ground, folder: Path, number: int) -> None:
    """Pushes, logs a value and moves an alias, by a client that retries."""
    adapter = open_dir(tiny_lora(folder / f"lora-{number}", seed=number))
    assert patiently(lambda: push(ground.registry, adapter, TONE)).version.number == number
    log_once(ground, number)
    patiently(lambda: move(ground.registry, number))
    shutil.rmtree(folder / f"lora-{number}")


def cut_round(ground: Ground, folder: Path, number: int, chance: random.Random) -> None:
    """Like `one_round`, with one COMMIT cut."""
    when: When = chance.choice(get_args(When))
    ground.proxy.cut_commit(when, chance.randrange(6))
    one_round(ground, folder, number)


def assert_once(ground: Ground, rounds: int) -> None:
    """Asserts that each push made one version with one value, and each move one event, and that rows and
    files are valid.
    """
    registry = ground.registry
    versions, cursor = [], None
    while True:
        page = registry.versions.list(TONE, cursor=cursor)
        versions += page.items
        if (cursor := page.next) is None:
            break
    assert sorted(version.number for version in versions) == list(range(1, rounds + 1))
    for number in range(1, rounds + 1):
        logged = registry.metrics.list(Ref.parse(f"{TONE}@{number}"))
        assert [value.value for value in logged] == [float(number)]
    (prod,) = registry.aliases.list(TONE)
    assert (prod.generation, prod.digest) == (
        rounds,
        registry.versions.get(Ref.parse(f"{TONE}@{rounds}")).digest,
    )
    kinds = [kind for (kind,) in ground.postgres.execute("SELECT kind FROM events", ground.name)]
    assert sum(kind == "version.pushed" for kind in kinds) == rounds, set(kinds)
    local = open_local(ground.server.data, catalog=ground.url)
    try:
        assert verify(local.catalog, local.blobs) == ()
    finally:
        local.close()


def test_a_commit_that_is_cut_takes_effect_once(ground: Ground, tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(1, 19):
        cut_round(ground, tmp_path, number, chance)
    assert ground.proxy.cuts >= 8
    assert_once(ground, 18)


@pytest.mark.heavy
def test_three_hundred_commits_that_are_cut_take_effect_once_each(ground: Ground, tmp_path: Path) -> None:
    number, chance = 0, random.Random(7)
    while ground.proxy.cuts < 300:
        number += 1
        cut_round(ground, tmp_path, number, chance)
    assert_once(ground, number)


def test_a_serialization_failure_is_retried(ground: Ground, tmp_path: Path) -> None:
    """Our own transactions cause no serialization failures, so a trigger raises some, counted by a sequence
    that rollbacks do not reset.
    """
    for statement in (
        "CREATE SEQUENCE tries",
        (
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') <= 2"
            " THEN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END IF; RETURN NEW;"
            " END $$"
        ),
        "CREATE TRIGGER fail BEFORE INSERT ON versions FOR EACH ROW EXECUTE FUNCTION fail()",
    ):
        ground.postgres.execute(statement, ground.name)
    pushed = push(ground.registry, open_dir(tiny_lora(tmp_path / "lora")), TONE)
    assert pushed.version.number == 1
    assert ground.postgres.execute("SELECT last_value FROM tries", ground.name) == [(3,)]


@pytest.mark.heavy
def test_a_server_that_crashes_during_the_campaign_keeps_acknowledged_commits(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """The test has its own server: after a crash, PostgreSQL first flushes the files of all databases, and
    other tests make hundreds.
    """
    (port,) = free_ports(1)
    with postgres_server(port) as server, behind_a_proxy(tmp_path / "data", server, port) as ground:
        for number in range(1, 11):
            if number in (4, 8):
                server.crash()
            one_round(ground, tmp_path, number)
        assert_once(ground, 10)


@pytest.mark.heavy
def test_a_standby_that_takes_over_has_all_acknowledged_commits(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """The standby is synchronous, as docs/deploying.md requires; the address moves like that of a proxy or a
    DNS name.
    """
    port, other = free_ports(2)
    with (
        postgres_server(port) as primary,
        behind_a_proxy(tmp_path / "data", primary, port) as ground,
        postgres_server(other, standby_of=primary) as standby,
    ):
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + 30
        while primary.execute("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < end
            time.sleep(0.05)
        chance = random.Random(3)
        for number in range(1, 7):
            cut_round(ground, tmp_path, number, chance)
        primary.stop()
        standby.promote()
        ground.proxy.upstream = ("127.0.0.1", other)
        ground.postgres = standby
        for number in range(7, 13):
            one_round(ground, tmp_path, number)
        assert_once(ground, 12)


@contextmanager
def pgbouncer(port: int, folder: Path, settings: str = "") -> Iterator[int]:
    """A pool in front of the server, which assigns a connection for one transaction at a time."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    (at,) = free_ports(1)
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port ="
        f" {at}\n"
        f"auth_type = trust\nauth_file = {folder / 'users.txt'}\npool_mode = transaction\nunix_socket_dir =\n"
        "default_pool_size = 10\nmax_client_conn = 500\nserver_idle_timeout = 1\n"  # each test has a database
        f"{settings}\n"
    )
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "postgres")
    process = subprocess.Popen(
        [program, "-q", str(folder / "pgbouncer.ini")], user="postgres", cwd="/", stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", at), 1).close()
                break
            except OSError:
                assert (process.poll(), time.monotonic() < end) == (None, True)
                time.sleep(0.05)
        yield at
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def pool(listening: tuple[PostgresServer, int]) -> Iterator[int]:
    with (
        tempfile.TemporaryDirectory(prefix="adaptry-pgbouncer-") as folder,
        pgbouncer(listening[1], Path(folder)) as port,
    ):
        yield port


@pytest.mark.slow
def test_a_pool_that_loses_prepared_statements_never_gives_another_statements_rows(
    listening: tuple[PostgresServer, int], tmp_path: Path
) -> None:
    """Two clients share two connections, and prepare the same statements in different orders."""
    names = [AdapterName.parse("acme/tone"), AdapterName.parse("acme/other")]
    with (
        tempfile.TemporaryDirectory(prefix="adaptry-pgbouncer-") as folder,
        pgbouncer(listening[1], Path(folder), "max_prepared_statements = 0\nmin_pool_size = 2") as port,
        ThreadPoolExecutor(4) as pool,
    ):
        url = f"postgresql://postgres@127.0.0.1:{port}/{listening[0].create_migrated()}"
        clients = [open_local(tmp_path / "registry", catalog=url) for _ in range(2)]
        for number, name in enumerate(names):
            push(clients[0], open_dir(tiny_lora(tmp_path / str(number), seed=number)), name)

        def read(client: int) -> set[object]:
            registry, (one, other) = clients[client], names[:: 1 if client else -1]
            found: set[object] = set()
            for _ in range(20):
                with suppress(Unavailable):  # once, when the first loss of a statement is noticed
                    found |= {registry.versions.get(Ref(one)).name == one}
                    found |= {registry.adapters.get(other).name == other}
                    found |= {len(registry.versions.search(f"name:{one}").items) == 1}
            return found

        assert set().union(*pool.map(read, [0, 1, 0, 1])) == {True}
        for registry in clients:
            assert registry.versions.get(Ref(names[0])).number == 1
            registry.close()


@pytest.mark.heavy
class TestThroughAPool(RegistryContract):
    """pgbouncer in the mode in which no session state outlives a transaction."""

    @pytest.fixture
    def make_registry(
        self, listening: tuple[PostgresServer, int], pool: int, tmp_path: Path
    ) -> Iterator[MakeRegistry]:
        url = f"postgresql://postgres@127.0.0.1:{pool}/{listening[0].create_migrated()}"
        registry = open_local(tmp_path / "registry", catalog=url)
        yield registry.on_behalf_of
        registry.close()
