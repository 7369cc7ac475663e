"""Lists of tokens, principals and grants over HTTP: pages and filters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

LISTS = ("tokens", "principals", "grants")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("lists")
    with (
        ExitStack() as at_the_end,
        running_server(ServerSettings(data=folder), at_the_end.callback) as started,
    ):
        for name in ("ann", "bob", "cid"):
            started.token(name, "viewer", ("acme",))
        yield started


@pytest.mark.parametrize("name", LISTS)
def test_pages_of_any_size_have_the_same_entries(server: Server, name: str) -> None:
    whole = server.call("GET", f"/api/v1/{name}").json
    assert whole["next"] is None
    assert len(whole["items"]) >= 3
    paged, cursor = [], ""
    while cursor is not None:
        address = f"/api/v1/{name}?limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = server.call("GET", address).json
        assert len(page["items"]) <= 2
        paged += page["items"]
        cursor = page["next"]
    assert paged == whole["items"]


@pytest.mark.parametrize("name", LISTS)
def test_bad_limits_and_cursors_are_refused(server: Server, name: str) -> None:
    largest = server.call("GET", "/api/v1").json["limits"]["page"]
    assert server.call("GET", f"/api/v1/{name}?limit={largest}").status == 200
    for query in ("limit=0", f"limit={largest + 1}", "cursor=nonsense"):
        assert server.call("GET", f"/api/v1/{name}?{query}").status == 400, query


def test_filters_are_parameters(server: Server) -> None:
    assert [one["name"] for one in _items(server, "principals?kind=user&kind=worker&prefix=b")] == ["bob"]
    assert [one["principal"] for one in _items(server, "tokens?principal=cid")] == ["cid"]
    assert _items(server, "tokens?reverse=true&limit=1")[0]["principal"] == "cid"
    assert _items(server, "grants?namespace=acme&with_members=false") == []


def _items(server: Server, address: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = server.call("GET", f"/api/v1/{address}").json["items"]
    return items
