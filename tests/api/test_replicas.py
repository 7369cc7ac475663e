"""Two servers over one PostgreSQL catalog and the same files are one registry."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.registry.access import MemberChange, TokenRequest
from adaptry.registry.http import HttpRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
Pair = tuple[Server, Server]


@pytest.fixture
def servers(postgres: PostgresServer, tmp_path: Path) -> Iterator[Pair]:
    settings = ServerSettings(data=tmp_path / "data", catalog=postgres.database())
    with running_server(settings) as one, running_server(settings) as other:
        yield one, other


def clients(servers: Pair) -> tuple[HttpRegistry, HttpRegistry]:
    """One token is valid at both."""
    return servers[0].registry(), servers[1].registry(servers[0].admin)


def test_a_file_pushed_to_one_replica_is_pulled_from_the_other(servers: Pair, tmp_path: Path) -> None:
    one, other = clients(servers)
    pushed = push(one, open_dir(tiny_lora(tmp_path / "lora")), TONE)
    assert other.versions.get(Ref.parse("acme/tone")).digest == pushed.version.digest
    pull(other, str(TONE), tmp_path / "pulled")
    assert open_dir(tmp_path / "pulled").spec.rank == pushed.version.rank


def test_concurrent_pushes_to_two_replicas_get_different_numbers(servers: Pair, tmp_path: Path) -> None:
    at = clients(servers)
    loras = [open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)) for seed in range(6)]
    with ThreadPoolExecutor(2) as pool:
        pushed = list(pool.map(lambda seed: push(at[seed % 2], loras[seed], TONE), range(6)))
    assert sorted(one.version.number for one in pushed) == [1, 2, 3, 4, 5, 6]
    happened = [event.seq for event in at[0].adapters.history(TONE).items]
    assert happened == sorted(happened, reverse=True)


def test_an_alias_moved_at_one_replica_has_its_new_position_at_the_other(
    servers: Pair, tmp_path: Path
) -> None:
    one, other = clients(servers)
    first, second = (
        push(one, open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)), TONE).version.digest
        for seed in (1, 2)
    )
    seen = one.aliases.move(TONE, "prod", first, None)
    other.aliases.move(TONE, "prod", second, seen.generation)
    with pytest.raises(Conflict, match="look again"):
        one.aliases.move(TONE, "prod", first, seen.generation)


def test_a_response_of_one_replica_is_revalidated_at_the_other(servers: Pair, tmp_path: Path) -> None:
    one, _ = clients(servers)
    first, second = (
        push(one, open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)), TONE).version.digest
        for seed in (1, 2)
    )
    one.aliases.move(TONE, "prod", first, None)
    prod = f"/api/v1/adapters/{TONE}/versions/prod"
    known = {"If-None-Match": servers[0].call("GET", prod).headers["ETag"]}
    token = servers[0].admin
    assert servers[1].call("GET", prod, token=token, headers=known).status == 304
    one.aliases.move(TONE, "prod", second, 1)
    moved = servers[1].call("GET", prod, token=token, headers=known)
    assert (moved.status, moved.json["number"]) == (200, 2)


def test_a_token_revoked_at_one_replica_is_soon_refused_at_the_other(servers: Pair) -> None:
    token = servers[0].token("ada", "reader", ("acme",))
    assert servers[1].call("GET", "/api/v1/whoami", token=token).status == 200
    (listed,) = (
        one for one in servers[0].call("GET", "/api/v1/tokens").json["items"] if one["name"] == "ada"
    )
    assert servers[0].call("DELETE", f"/api/v1/tokens/{listed['id']}").status == 204
    until = time.monotonic() + 60
    while servers[1].call("GET", "/api/v1/whoami", token=token).status != 401:
        assert time.monotonic() < until


def test_a_member_removed_at_one_replica_soon_loses_access_at_the_other(
    servers: Pair, tmp_path: Path
) -> None:
    one, _ = clients(servers)
    push(one, open_dir(tiny_lora(tmp_path / "lora")), TONE)
    one.principals.create("user", "mia")
    one.grants.set_member("acme", MemberChange(principal="mia", role="viewer"))
    token = one.tokens.create(TokenRequest(name="laptop", principal="mia")).secret
    there = f"/api/v1/adapters/{TONE}"
    assert servers[1].call("GET", there, token=token).status == 200
    one.grants.set_member("acme", MemberChange(principal="mia", role=None))
    until = time.monotonic() + 60
    while servers[1].call("GET", there, token=token).status != 404:
        assert time.monotonic() < until


def test_an_upload_begun_at_one_server_continues_at_the_other(servers: Pair, tmp_path: Path) -> None:
    one, other = clients(servers)
    lora = open_dir(tiny_lora(tmp_path / "lora"))
    data = b"".join(lora.content.chunks("adapter_model.safetensors"))
    session = one.uploads.open(TONE, Digest.of(data), len(data))
    session = one.uploads.append(session, 0, [data[:1000]])
    session = other.uploads.append(session, 1000, [data[1000:]])
    one.uploads.finish(session)
    assert other.files.has(TONE, Digest.of(data))


@pytest.mark.parametrize("address", ["/api/v1/search?q=method:lora+-x{}", "/?q=method:lora+-x{}"])
def test_other_reads_are_answered_while_many_searches_wait_for_the_database(
    postgres: PostgresServer, tmp_path: Path, address: str
) -> None:
    name = postgres.create_migrated()
    with running_server(ServerSettings(data=tmp_path / "data", catalog=postgres.url(name))) as server:
        push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), TONE)
        never_seen = server.token("rita", "reader", ("acme",))
        there = f"/api/v1/adapters/{TONE}"
        with psycopg.connect(postgres.url(name)) as other, ThreadPoolExecutor(64) as pool:
            other.execute("LOCK TABLE postings IN ACCESS EXCLUSIVE MODE")  # only searches read this
            waiting = [pool.submit(server.call, "GET", address.format(number)) for number in range(64)]
            try:
                reads = [
                    server.call("GET", f"{there}{part}", token=never_seen)
                    for part in ("", "/versions", "/versions/1/detail")
                ]
                assert [one.status for one in (*reads, server.call("GET", f"/{TONE}"))] == [200] * 4
                assert not any(one.done() for one in waiting)
            finally:
                other.rollback()
            assert {one.result().status for one in waiting} == {200}


def test_an_unavailable_database_is_reported_without_its_address(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    name = postgres.create_migrated()
    with running_server(ServerSettings(data=tmp_path / "data", catalog=postgres.url(name))) as server:
        assert server.call("GET", "/readyz", token=None).status == 200
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        answers = [
            server.call("GET", "/readyz", token=None),
            server.call("GET", "/api/v1/adapters", token="adr_pat_" + "0" * 38),
            server.call("GET", "/api/models/acme/tone"),
        ]
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert server.call("GET", "/readyz", token=None).status == 200
    assert [answer.status for answer in answers] == [503, 503, 503]
    for answer in answers:
        assert b"is not answering" in answer.body
        assert not any(
            said in answer.body for said in (name.encode(), b"postgresql", str(postgres.socket).encode())
        )
