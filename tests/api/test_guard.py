"""Every route checks permissions, and its decision is that of the registry."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from adaptry.adapters.adapter import Adapter
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry_api.app import create_app
from adaptry_api.auth_policy import (
    ADMINISTRATOR,
    PUBLIC,
    check_routes,
    guarded_router,
    has_access_rule,
    public,
)
from adaptry_api.hub.refusals import HubRoute
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, assert_problem

OPEN = {
    "/openapi.json",
    "/api/v1/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/v1/tokens/revoke",
    "/api/v1/invitations/accept",
    "/oauth/token",
    "/oauth/device",
    "/api/validate-yaml",
    "/-/sign-in/provider",
    "/-/sign-in/provider/callback",
    "/-/sign-in",
    "/-/sign-in/link",
    "/-/sign-out",
    "/-/static/{tag}/{file}",
}


def routes(tmp_path: Path) -> list[APIRoute]:
    return [
        route for route in create_app(ServerSettings(data=tmp_path)).routes if isinstance(route, APIRoute)
    ]


def test_a_route_without_an_access_rule_cannot_be_created() -> None:
    with pytest.raises(TypeError, match="has no access rule"):
        guarded_router().get("/secret")(lambda: "everything")


def test_an_application_with_an_unguarded_route_does_not_start() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/secret")(lambda: "everything")
    with pytest.raises(TypeError, match="has no access rule"):
        check_routes(app)


def test_a_route_may_be_open_to_everyone_or_to_administrators() -> None:
    router = guarded_router()
    router.get("/open", dependencies=[PUBLIC])(lambda: "ok")
    router.get("/closed", dependencies=[ADMINISTRATOR])(lambda: "ok")
    assert all(has_access_rule(route) for route in router.routes if isinstance(route, APIRoute))


def test_only_routes_that_reveal_nothing_are_open_to_everyone(tmp_path: Path) -> None:
    def is_open(route: APIRoute) -> bool:
        return any(dependant.call is public for dependant in route.dependant.dependencies)

    assert {route.path for route in routes(tmp_path) if is_open(route)} == OPEN


def test_every_other_route_refuses_a_caller_without_a_token_or_with_a_bad_one(
    server: Server, tmp_path: Path
) -> None:
    revoked = server.token("gone", "admin", ("*",))
    assert server.call("POST", "/api/v1/tokens/revoke", {"token": revoked}, token=None).status == 202
    expired = server.token("late", "admin", ("*",), datetime.now(UTC) + timedelta(days=1))
    with sqlite3.connect(server.data / "catalog.sqlite") as database:  # a day passes
        database.execute("UPDATE tokens SET expires_at = created_at WHERE expires_at IS NOT NULL")
    database.close()
    refused = 0
    for route in routes(tmp_path / "other"):
        if route.path in OPEN:
            continue
        path = re.sub(r"\{[^}]+\}", "x", route.path)
        for method in route.methods or ():
            for token in (None, "", "adr_pat_nonsense", revoked, expired):
                answer = server.call(method, path, token=token, headers={"Origin": server.url})
                if not isinstance(route, HubRoute):  # this refuses in the Hub's own form
                    assert_problem(answer, 401, "unauthenticated")
                assert answer.status == 401, (method, path, answer.body)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                refused += 1
    assert refused > 150


@pytest.fixture
def private(server: Server, tone: Adapter) -> Server:
    """A server with the private adapter acme/tone, version 1, alias prod."""
    registry = server.registry()
    push(registry, tone, "acme/tone", options=PushOptions(alias="prod"))
    return server


def calls_on(name: str, digest: str) -> list[tuple[str, str, object, dict[str, str]]]:
    """Every call about one adapter, with a body that would be valid if its owner sent it."""
    at = f"/api/v1/adapters/{name}"
    seen = {"If-Match": '"1"'}
    return [
        ("GET", at, None, {}),
        ("PATCH", at, {"description": "mine"}, {}),
        ("DELETE", at, None, {}),
        ("POST", f"{at}/rename", {"to": "evil/tone"}, {}),
        ("GET", f"{at}/history", None, {}),
        ("GET", f"{at}/versions", None, {}),
        ("GET", f"{at}/versions/1", None, {}),
        ("GET", f"{at}/versions/prod/detail", None, {}),
        ("POST", f"{at}/versions/1/downloads", None, {}),
        ("GET", f"{at}/versions/1/metrics", None, {}),
        ("POST", f"{at}/versions/1/metrics", {"metrics": {"accuracy": 1.0}}, {}),
        ("GET", f"{at}/versions/1/evidence", None, {}),
        (
            "POST",
            f"{at}/versions/1/evidence",
            {"digest": digest, "format": "mlflow", "values": [{"metric": "f1", "value": 1.0}]},
            {},
        ),
        ("GET", f"{at}/revisions/{digest}/manifest", None, {}),
        ("GET", f"{at}/revisions/{digest}/files/adapter_config.json", None, {}),
        ("GET", f"{at}/aliases", None, {}),
        ("GET", f"{at}/aliases/prod", None, {}),
        ("PUT", f"{at}/aliases/prod", {"to": digest}, seen),
        ("DELETE", f"{at}/aliases/prod", None, seen),
    ]


def test_another_tenants_private_adapter_is_absent_for_every_request(private: Server) -> None:
    digest = str(private.registry().versions.list(AdapterName.parse("acme/tone")).items[0].digest)
    stranger = private.token("eve", "writer", ("evil",))
    for method, path, body, headers in calls_on("acme/tone", digest):
        answer = private.call(method, path, body, token=stranger, headers=headers)
        assert answer.status == 404, (method, path, answer.body)
        absent = private.call(
            method, path.replace("acme/tone", "acme/absent"), body, token=stranger, headers=headers
        )
        assert (absent.status, absent.json["code"]) == (404, answer.json["code"])
    searched = private.call("GET", "/api/v1/search", token=stranger).json
    listed = private.call("GET", "/api/v1/adapters", token=stranger).json
    assert (searched["items"], listed["items"]) == ([], [])


def test_a_reader_reads_and_changes_nothing(private: Server) -> None:
    digest = str(private.registry().versions.list(AdapterName.parse("acme/tone")).items[0].digest)
    reader = private.token("rita", "reader", ("acme",))
    for method, path, body, headers in calls_on("acme/tone", digest):
        answer = private.call(method, path, body, token=reader, headers=headers)
        if method == "GET" or path.endswith("/downloads"):
            assert answer.status in (200, 204), (method, path, answer.body)
        else:
            assert_problem(answer, 403, "denied")


def test_a_caller_does_not_learn_that_another_tenant_has_a_file(private: Server) -> None:
    entry = private.call("GET", "/api/v1/adapters/acme/tone/versions/1/detail").json["manifest"]["files"][0]
    stranger = private.token("eve", "writer", ("evil",))
    private.registry(stranger).adapters.create(AdapterName.parse("evil/copy"), AdapterEdit())
    answer = private.call("GET", f"/api/v1/adapters/evil/copy/blobs/{entry['sha256']}", token=stranger)
    assert answer.json == {"is_here": False}


def test_without_a_token_nothing_is_read_unless_the_operator_allows_it(
    start: Callable[..., Server], tone: Adapter
) -> None:
    server = start(anonymous_read=True)
    push(server.registry(), tone, "acme/open")
    push(server.registry(), tone, "acme/closed")
    server.registry().adapters.edit(AdapterName.parse("acme/open"), AdapterEdit(visibility="public"))
    assert server.call("GET", "/api/v1/adapters/acme/open", token=None).status == 200
    assert server.call("GET", "/api/v1/adapters/acme/closed", token=None).status == 404
    assert server.call("DELETE", "/api/v1/adapters/acme/open", token=None).status == 403
    assert [item["name"] for item in server.call("GET", "/api/v1/search", token=None).json["items"]] == [
        "acme/open"
    ]


def test_only_an_administrator_of_all_namespaces_creates_tokens_for_others(server: Server) -> None:
    wanted = {"name": "bob", "role": "admin", "namespaces": ["*"]}
    for token in (server.token("w", "writer", ("*",)), server.token("a", "admin", ("acme",))):
        assert_problem(server.call("POST", "/api/v1/tokens", wanted, token=token), 403, "denied")
        (own,) = server.call("GET", "/api/v1/tokens", token=token).json["items"]
        assert token.endswith(own["last_four"])


def test_a_created_token_works_until_it_is_revoked(server: Server) -> None:
    made = server.call("POST", "/api/v1/tokens", {"name": "bob", "role": "writer", "namespaces": ["bob"]})
    assert made.status == 201
    secret = made.json["secret"]
    who = server.call("GET", "/api/v1/whoami", token=secret).json
    assert (who["identity"], who["role"], who["namespaces"]) == ("bob", "writer", ["bob"])
    listed = server.call("GET", "/api/v1/tokens")
    assert secret.encode() not in listed.body
    mine = next(token for token in listed.json["items"] if token["name"] == "bob")
    assert server.call("DELETE", f"/api/v1/tokens/{mine['id']}").status == 204
    assert_problem(server.call("GET", "/api/v1/whoami", token=secret), 401, "unauthenticated")


def test_revoking_a_leaked_token_answers_the_same_for_any_text(server: Server) -> None:
    real = server.call(
        "POST", "/api/v1/tokens/revoke", {"token": server.token("x", "reader", ("x",))}, token=None
    )
    unknown = server.call("POST", "/api/v1/tokens/revoke", {"token": "adr_pat_nothing"}, token=None)
    assert (real.status, real.body) == (unknown.status, unknown.body) == (202, b"")
