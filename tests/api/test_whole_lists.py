"""Lists of tokens, principals and grants over HTTP: as pages, and as the arrays that older clients expect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adaptry_api.routes.whole_lists import MOST
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

LISTS = ("tokens", "principals", "grants")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = ServerSettings(data=tmp_path / "data")
    with ExitStack() as at_the_end, running_server(settings, at_the_end.callback) as started:
        for name in ("ann", "bob", "cid"):
            started.token(name, "viewer", ("acme",))
        yield started


@pytest.mark.parametrize("name", LISTS)
def test_a_client_that_knows_no_pages_gets_the_whole_list_as_an_array(server: Server, name: str) -> None:
    whole = server.call("GET", f"/api/v1/{name}").json
    assert isinstance(whole, list)
    assert len(whole) >= 3
    paged, cursor = [], ""
    while cursor is not None:
        address = f"/api/v1/{name}?limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = server.call("GET", address).json
        assert len(page["items"]) <= 2
        paged += page["items"]
        cursor = page["next"]
    assert paged == whole


@pytest.mark.parametrize("name", LISTS)
def test_bad_limits_and_cursors_are_refused(server: Server, name: str) -> None:
    for query in ("limit=0", "limit=201", "cursor=nonsense"):
        assert server.call("GET", f"/api/v1/{name}?{query}").status == 400, query


def test_filters_are_parameters(server: Server) -> None:
    people = server.call("GET", "/api/v1/principals?kind=user&kind=worker&prefix=b").json
    assert [one["name"] for one in people] == ["bob"]
    assert [one["principal"] for one in server.call("GET", "/api/v1/tokens?principal=cid").json] == ["cid"]
    newest = server.call("GET", "/api/v1/tokens?reverse=true&limit=1").json["items"]
    assert newest[0]["principal"] == "cid"
    assert server.call("GET", "/api/v1/grants?namespace=acme&with_members=false").json == []


def test_a_list_that_is_too_long_for_an_array_is_refused_and_never_cut(server: Server) -> None:
    numbers = f"WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {MOST})"
    with server.catalog.write() as tx:
        tx.connection().exec_driver_sql(
            f"INSERT INTO principals (kind, name, created_at, created_by) {numbers}"
            " SELECT 'worker', 'gpu-' || id, '2026-01-01 00:00:00.000000', 'root' FROM ids"
        )
    refused = server.call("GET", "/api/v1/principals")
    assert refused.status == 400
    assert "limit=200" in refused.body.decode()
    assert len(server.call("GET", "/api/v1/principals?kind=user").json) >= 3
    assert len(server.call("GET", "/api/v1/principals?limit=200").json["items"]) == 200
