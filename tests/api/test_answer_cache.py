"""A cached response about a version is exactly the response that would be computed now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server, until

TONE = AdapterName.parse("acme/tone")
CONFIG = "/acme/tone/resolve/main/adapter_config.json"
PROD = "/api/v1/adapters/acme/tone/versions/prod"


def test_a_change_by_another_process_is_in_the_next_answer(
    server: Server, registry: HttpRegistry, tone: Adapter, tmp_path: Path
) -> None:
    first = push(registry, tone, TONE, options=PushOptions(alias="prod")).version.digest
    second = push(registry, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE).version.digest
    other = open_local(server.data)
    for move in range(1, 9):
        for _ in range(3):
            assert server.call("GET", PROD).json["number"] == 2 - move % 2
        other.aliases.move(TONE, "prod", second if move % 2 else first, move)
    other.versions.set_state(TONE, first, StateChange(state="revoked", reason="leaks"), 0)
    assert server.call("GET", PROD).json["state"] == "revoked"
    other.close()


def test_a_response_is_only_for_permitted_readers(
    server: Server, registry: HttpRegistry, tone: Adapter
) -> None:
    push(registry, tone, TONE, options=PushOptions(alias="prod"))
    readers = {name: server.token(name, "reader", (name,)) for name in ("acme", "evil")}
    statuses = {"acme": 200, "evil": 404}

    def check() -> None:
        for _ in range(2):
            for name, token in readers.items():
                assert server.call("GET", PROD, token=token).status == statuses[name]
            assert server.call("GET", PROD).status == 200
            assert server.call("GET", PROD, token=None).status == 401
            assert server.call("GET", f"{PROD}?x=1").status == 400

    check()
    registry.adapters.edit(TONE, AdapterEdit(visibility="public"))
    statuses["evil"] = 200
    check()


def test_a_response_that_the_caller_already_has_is_not_sent_again(
    server: Server, registry: HttpRegistry, tone: Adapter
) -> None:
    push(registry, tone, TONE, options=PushOptions(alias="prod"))
    tag = server.call("GET", PROD).headers["ETag"]
    for _ in range(3):
        again = server.call("GET", PROD, headers={"If-None-Match": tag})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert server.call("GET", PROD, headers={"If-None-Match": '"other"'}).status == 200
    registry.versions.count_download(Ref.parse("acme/tone@prod"))
    assert server.call("GET", PROD, headers={"If-None-Match": tag}).status == 200


def test_ids_of_requests_stay_different(server: Server) -> None:
    seen = {server.call("GET", "/healthz", token=None).headers["Request-Id"] for _ in range(30)}
    assert len(seen) == 30
    assert all(len(one) == 16 for one in seen)


def test_a_hub_client_is_answered_as_of_the_last_change_of_any_process(
    server: Server, registry: HttpRegistry, tone: Adapter, tmp_path: Path
) -> None:
    pushed = push(registry, tone, TONE).version
    reader, other = server.token("acme", "reader", ("acme",)), open_local(server.data)
    for seed in (2, 3, 4):
        for _ in range(3):
            found = server.call("HEAD", CONFIG, token=reader)
            assert (found.status, found.headers["X-Repo-Commit"]) == (200, pushed.digest.hex[:40])
            assert server.call("GET", "/api/models/acme/tone").json["sha"] == pushed.digest.hex[:40]
        pushed = push(other, open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), TONE).version
    assert server.call("HEAD", CONFIG, token=reader).status == 200
    other.versions.set_state(TONE, pushed.digest, StateChange(state="quarantined", reason="leaks"), 0)
    for method in ("HEAD", "GET"):
        assert server.call(method, CONFIG, token=reader).status == 403
    other.adapters.delete(TONE)
    assert server.call("HEAD", CONFIG).status == 404
    other.close()


def test_a_hub_client_gets_no_response_cached_for_another(
    server: Server, registry: HttpRegistry, tone: Adapter
) -> None:
    push(registry, tone, TONE)
    stranger = server.token("evil", "reader", ("evil",))
    for _ in range(2):
        assert server.call("GET", CONFIG).status == 200
        assert server.call("GET", "/acme/tone/resolve/main/no.txt").status == 404
        assert server.call("GET", CONFIG, token=stranger).status == 404
        assert server.call("GET", CONFIG, token=None).status == 401


def test_a_search_shows_the_last_change_of_any_process(
    server: Server, registry: HttpRegistry, tone: Adapter, tmp_path: Path
) -> None:
    push(registry, tone, TONE)
    other = open_local(server.data)
    address = "/api/v1/search?q=name:acme/tone"
    for seed in (2, 3, 4):
        for _ in range(3):
            found = server.call("GET", address).json["items"]
            assert [one["number"] for one in found] == list(range(seed - 1, 0, -1))
        push(other, open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), TONE)
    newest = other.version("acme/tone@4")
    other.versions.set_state(TONE, newest.digest, StateChange(state="revoked", reason="leaks"), 0)
    assert [one["number"] for one in server.call("GET", address).json["items"]] == [3, 2, 1]
    other.close()


def test_a_search_is_the_same_however_its_parameters_are_written(
    server: Server, registry: HttpRegistry, tone: Adapter, tmp_path: Path
) -> None:
    push(registry, tone, TONE, options=PushOptions(alias="prod", metrics={"f1": 0.5}))
    push(registry, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE)
    quick = "/api/v1/search?q=name:acme/tone&limit=1&sort=created&reverse=true"
    parsed = quick.replace("reverse=true", "reverse=1")  # which only FastAPI understands
    for _ in range(2):
        assert server.call("GET", quick).json == server.call("GET", parsed).json
    following = quote(server.call("GET", quick).json["next"])
    second = server.call("GET", f"{quick}&cursor={following}").json
    assert second == server.call("GET", f"{parsed}&cursor={following}").json
    assert [one["number"] for one in second["items"]] == [2]
    for wrong in ("limit=x", "reverse=maybe"):
        assert server.call("GET", f"/api/v1/search?{wrong}").status == 422, wrong
    for wrong in ("limit=0", "limit=201", "sort=colour", "q=colour:red", "x=1"):
        assert server.call("GET", f"/api/v1/search?{wrong}").status == 400, wrong


def test_a_search_shows_each_reader_only_their_versions(
    server: Server, registry: HttpRegistry, tone: Adapter
) -> None:
    push(registry, tone, TONE)
    readers = {name: server.token(name, "reader", (name,)) for name in ("acme", "evil")}
    for _ in range(2):
        for name, token in readers.items():
            found = server.call("GET", "/api/v1/search?q=", token=token).json["items"]
            assert len(found) == (name == "acme")
        assert server.call("GET", "/api/v1/search?q=", token=None).status == 401
    registry.adapters.edit(TONE, AdapterEdit(visibility="public"))
    assert len(server.call("GET", "/api/v1/search?q=", token=readers["evil"]).json["items"]) == 1


def test_a_search_by_relative_time_is_never_answered_from_memory(server: Server, tone: Adapter) -> None:
    other = open_local(server.data)
    other.context.clock = lambda: datetime.now(UTC) - timedelta(minutes=59, seconds=57)
    push(other, tone, TONE)
    recent = "/api/v1/search?q=created>=60m"
    assert len(server.call("GET", recent).json["items"]) == 1
    until(lambda: server.call("GET", recent).json["items"], lambda found: not found)
    other.close()
