"""Reads of the Hub protocol that bypass FastAPI have exactly the responses that FastAPI would give."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import Message, Scope

from adaptry.adapters.adapter import open_dir
from adaptry.core.identity import LOCAL
from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.quotas import QuotaRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage import tokens
from adaptry.testing.samples import tiny_lora
from adaptry_api.app import create_app
from adaptry_api.app_state import AppState
from adaptry_api.immediate_answers import EncodedAnswer, ImmediateAnswers
from adaptry_api.quick_routes import QuickRoutes
from adaptry_api.settings import ServerSettings

from .pushed import CARD, CONFIG, README, WEIGHTS

TONE, LEAKY, HIDDEN = map(AdapterName.parse, ("acme/tone", "acme/leaky", "evil/secret"))
_NEW = frozenset({b"request-id", b"x-request-id"})


@dataclass(frozen=True)
class Answered:
    """A response, and the entries that the log and the metrics have about the request."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    route: str | None
    principal: str | None


@dataclass(frozen=True)
class Site:
    """The same registry behind two applications: as served, and with FastAPI for every request."""

    quick: FastAPI
    plain: FastAPI
    tokens: Mapping[str, str | None]
    commits: tuple[str, str]

    @property
    def state(self) -> AppState:
        state = self.quick.state.adaptry
        assert isinstance(state, AppState)
        return state

    def ask(self, app: FastAPI, method: str, url: str, token: str, **headers: str) -> Answered:
        return asyncio.run(_ask(app, method, url, {**headers, **_authorization(self.tokens[token])}))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    data = tmp_path / "data"
    quick, plain = (create_app(ServerSettings(data=data)) for _ in range(2))
    plain.user_middleware = [one for one in plain.user_middleware if one.cls is not QuickRoutes]
    state: AppState = quick.state.adaptry
    registry = state.registry(LOCAL)

    def store(name: AdapterName, seed: int, **options: str) -> str:
        folder = tiny_lora(tmp_path / str(seed), seed=seed)
        (folder / README).write_bytes(CARD)
        return push(registry, open_dir(folder), name, options=PushOptions(**options)).version.digest.hex[:40]

    first, second = store(TONE, 1, alias="prod"), store(TONE, 2)
    store(AdapterName.parse("acme/old"), 3)
    registry.adapters.rename(AdapterName.parse("acme/old"), AdapterName.parse("acme/new"))
    store(HIDDEN, 4)
    store(LEAKY, 5)
    leaky = registry.versions.list(LEAKY).items[0].digest
    registry.versions.set_state(LEAKY, leaky, StateChange(state="quarantined", reason="leaks"), 0)
    registry.adapters.edit(TONE, AdapterEdit(visibility="public"))
    known = {
        "admin": tokens.create_token(state.catalog, "root", "admin", ("*",)),
        "reader": tokens.create_token(state.catalog, "ann", "reader", ("acme",)),
        "stranger": tokens.create_token(state.catalog, "eve", "reader", ("evil",)),
        "wrong": "adr_user_0000",
        "none": None,
    }
    with closing(quick.state.adaptry), closing(plain.state.adaptry):
        yield Site(quick, plain, known, (first, second))


def urls(site: Site) -> list[str]:
    names = (
        "acme/tone",
        "acme/old",
        "acme/leaky",
        "evil/secret",
        "acme/Tone",
        "acme/none",
        "a%63me/tone",
        "tiny",
    )
    revisions = ("main", "HEAD", "v1", "prod", "refs%2Fpr%2F1", "none", *site.commits, site.commits[0][:9])
    paths = (CONFIG, WEIGHTS, README, "none.txt", "a/b.json", "", f"{CONFIG}/", "%41")
    files = [f"/{name}/resolve/{at}/{path}" for name, at, path in product(names, revisions, paths)]
    infos = [f"/api/models/{name}" for name in names]
    at_revisions = [f"/api/models/{name}/revision/{at}" for name, at in product(names, revisions)]
    trees = [f"/api/models/{name}/tree/{at}" for name, at in product(names, revisions)]
    queries = ("", "?recursive=true&expand=false", "?recursive=false&expand=false", "?x=1", "?download=true")
    odd = (
        "/a/resolve/raw/main/x",
        "/a/raw/resolve/main/x",
        "/api/models/resolve/main/discussions",
        "/x/y/resolve/z",
    )
    odd += (
        "/api/models/acme/tree/main",
        "/api/models/a/tree/revision/main",
        "/api/models/acme/tone/tree/main/a/b",
    )
    return [url + query for url, query in product([*files, *infos, *at_revisions, *trees, *odd], queries)]


def requests(site: Site) -> list[tuple[str, str, str, dict[str, str]]]:
    """400 of all combinations, the same ones in each run."""
    chosen, tag = random.Random(3), '"8c8b9a8148120ceae41c0c0c8d075b6771960cd6"'
    headers: tuple[dict[str, str], ...] = (
        {},
        {"range": "bytes=2-9"},
        {"range": "bytes=-3"},
        {"range": "bytes=999999999-"},
        {"range": "bytes=1-2,5-6"},
        {"range": "bytes=0-3", "if-range": '"other"'},
        {"if-none-match": tag},
        {"if-none-match": '"other"'},
    )
    methods, every = ("GET", "GET", "HEAD", "POST"), urls(site)
    plain = [
        url
        for url in every
        if "?" not in url and "%" not in url and ("tone/resolve" in url or "leaky/resolve" in url)
    ]
    return [
        (chosen.choice(methods), chosen.choice(one), chosen.choice(list(site.tokens)), chosen.choice(headers))
        for _ in range(200)
        for one in (every, plain)
    ]


def test_the_quick_answer_of_each_request_equals_fastapis(site: Site) -> None:
    seen = set()
    for method, url, token, headers in requests(site):
        expected = site.ask(site.plain, method, url, token, **headers)
        for _ in range(2):  # the second time from memory
            assert site.ask(site.quick, method, url, token, **headers) == expected, (
                method,
                url,
                token,
                headers,
            )
        seen.add(expected.status)
    assert seen >= {200, 206, 304, 307, 401, 403, 404, 416}


def sent(immediate: ImmediateAnswers, scope: Scope) -> EncodedAnswer | None:
    """The response that was sent from memory, if there is one."""
    found = immediate(scope)
    return immediate.send(found) if found else None


def test_an_answer_from_memory_equals_the_usual_one(site: Site) -> None:
    immediate, answered = site.quick.state.immediate_answers, set()
    more = [("GET", f"/api/models/acme/tone/revision/{at}", "reader", {}) for at in ("main", *site.commits)]
    for method, url, token, headers in [*requests(site), *more]:
        expected = site.ask(site.quick, method, url, token, **headers)
        scope = _scope(method, url, {**headers, **_authorization(site.tokens[token])}, site.quick)
        if (answer := sent(immediate, scope)) is None:
            continue
        route, principal, lines = (
            scope["route"].path,
            scope["state"]["identity"].name,
            answer.head.splitlines(),
        )
        kept = [header for line in lines if (header := tuple(line.split(b": ", 1)))[0] not in _NEW]
        assert Answered(answer.status, kept, answer.body, route, principal) == expected, (
            method,
            url,
            token,
            headers,
        )
        repeated = _scope(method, url, {**headers, **_authorization(site.tokens[token])}, site.quick)
        assert (again := sent(immediate, repeated)) is not None
        assert (again.status, again.body) == (answer.status, answer.body)
        assert _without_request_ids(again.head) == _without_request_ids(answer.head) != answer.head
        answered.add((method, route.rpartition("/")[0]))
    assert answered >= {
        ("GET", "/{namespace}/{name}/resolve/{revision}"),
        ("HEAD", "/{namespace}/{name}/resolve/{revision}"),
        ("GET", "/api/models/{namespace}/{name}/revision"),
        ("GET", "/api/models/{namespace}/{name}/tree"),
    }


def test_only_requests_whose_answer_depends_on_nothing_else_are_answered_from_memory(site: Site) -> None:
    immediate, url = site.quick.state.immediate_answers, f"/acme/tone/resolve/main/{CONFIG}"
    known = _authorization(site.tokens["reader"])

    def is_answered(**headers: str) -> bool:
        site.ask(site.quick, "GET", url, "reader")
        return immediate(_scope("GET", url, headers, site.quick)) is not None

    assert is_answered(**known)
    for name in (
        "range",
        "if-range",
        "origin",
        "content-length",
        "x-forwarded-for",
        "adaptry-api",
        "cookie",
    ):
        assert not is_answered(**known, **{name: "1"}), name
    assert not is_answered()
    assert not is_answered(authorization="Bearer adr_user_0000")


def test_no_answer_from_memory_is_older_than_a_commit(site: Site) -> None:
    immediate, url = site.quick.state.immediate_answers, f"/acme/tone/resolve/main/{CONFIG}"
    scope = partial(_scope, "GET", url, _authorization(site.tokens["reader"]), site.quick)
    site.ask(site.quick, "GET", url, "reader")
    assert immediate(scope()) is not None
    other = site.plain.state.adaptry.registry(LOCAL)  # as in another process
    version = other.versions.list(TONE).items[0]
    other.versions.set_state(TONE, version.digest, StateChange(state="revoked", reason="leaks"), 0)
    assert immediate(scope()) is None
    assert site.ask(site.quick, "GET", url, "reader").status == 403
    assert immediate(scope()) is None


def test_each_answer_from_memory_counts_as_a_request_and_a_download(site: Site) -> None:
    immediate, url = site.quick.state.immediate_answers, f"/acme/tone/resolve/main/{WEIGHTS}"
    site.ask(site.quick, "GET", url, "reader")
    for _ in range(3):
        scope = _scope("GET", url, _authorization(site.tokens["reader"]), site.quick)
        assert sent(immediate, scope) is not None
    route = 'route="/{namespace}/{name}/resolve/{revision}/{path:path}",status="200"'
    assert f'adaptry_requests_total{{method="GET",{route}}} 4.0' in site.quick.state.counts.render()
    site.state.store_downloads()
    assert site.state.registry(LOCAL).adapters.get(TONE).downloads == 4


def test_requests_are_not_answered_from_memory_while_their_number_is_limited(site: Site) -> None:
    immediate, url = site.quick.state.immediate_answers, f"/acme/tone/resolve/main/{CONFIG}"
    site.state.registry(LOCAL).quotas.set(QuotaRequest(scope="principal", name="ann", requests=3))
    site.state.read_request_limits()
    site.ask(site.quick, "GET", url, "reader")
    assert immediate(_scope("GET", url, _authorization(site.tokens["reader"]), site.quick)) is None


def test_frequent_reads_do_not_reach_fastapi(site: Site) -> None:
    async def unreachable(scope: Scope, receive: object, send: object) -> None:
        raise AssertionError(scope["path"])

    quick = QuickRoutes(unreachable, site.quick.routes)
    commit, name = site.commits[0], "acme/tone"
    frequent = [("GET", f"/api/models/{name}"), ("GET", f"/api/models/{name}/revision/main")]
    frequent += [("GET", f"/api/models/{name}/tree/{commit}?recursive=true&expand=false")]
    frequent += [
        (method, f"/{name}/resolve/{commit}/{path}")
        for method in ("HEAD", "GET")
        for path in (CONFIG, WEIGHTS)
    ]
    for method, url in frequent:
        authorization = _authorization(site.tokens["reader"])
        answer = asyncio.run(_ask(quick, method, url, authorization, app=site.quick))
        assert answer.status == 200, url


def test_a_tree_by_commit_is_answered_from_the_snapshot_that_was_looked_up_by_branch(site: Site) -> None:
    name = "acme/tone"
    info = site.ask(site.quick, "GET", f"/api/models/{name}/revision/main", "reader")
    commit = json.loads(info.body)["sha"]
    kept = site.quick.state.hub_snapshots
    look_ups = len(kept.known)
    tree = f"/api/models/{name}/tree/{commit}?recursive=true&expand=false"
    answer = site.ask(site.quick, "GET", tree, "reader")
    assert answer.body == site.ask(site.plain, "GET", tree, "reader").body
    assert len(kept.known) == look_ups


def test_the_next_look_up_also_reads_small_files_that_were_requested_before(site: Site) -> None:
    info = site.ask(site.quick, "GET", "/api/models/acme/tone/revision/main", "reader")
    config = f"/acme/tone/resolve/{json.loads(info.body)['sha']}/{CONFIG}"
    expected = site.ask(site.quick, "GET", config, "reader")
    site.state.registry(LOCAL).adapters.create(AdapterName.parse("acme/other"), AdapterEdit())
    site.ask(site.quick, "GET", "/api/models/acme/tone/revision/main", "reader")
    for blob in (site.state.folder / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    assert site.ask(site.quick, "GET", config, "reader") == expected


def test_no_other_route_comes_before_one_that_is_answered_quickly(site: Site) -> None:
    quick = QuickRoutes(site.plain, site.quick.routes)
    answered = 0
    for url in urls(site):
        for method in ("GET", "HEAD"):
            scope = _scope(method, url, {}, site.quick)
            if (found := quick.find(Request(scope))) is None:
                continue
            (route, _), matched = found
            first = next(one for one in site.quick.routes if one.matches(scope)[0] is Match.FULL)
            assert first is route, url
            assert route.matches(scope) == (Match.FULL, matched), url
            answered += 1
    assert answered > 100


def test_a_request_that_is_denied_quickly_is_in_the_audit_log(site: Site) -> None:
    denied = [
        ("acme/tone", "wrong"),
        ("evil/secret", "reader"),
        ("acme/leaky", "reader"),
        ("acme/tone", "none"),
    ]
    for app in (site.quick, site.plain):
        for name, token in denied:
            site.ask(app, "GET", f"/{name}/resolve/main/{CONFIG}", token)
    entries = [list(map(_without_ids, app.state.adaptry.denials.take())) for app in (site.quick, site.plain)]
    assert len(entries[0]) == 2  # the hidden adapter is absent, and reads without a token are not noted
    assert entries[0] == entries[1]


def test_a_quick_answer_counts_as_one_request(site: Site) -> None:
    registry = site.state.registry(LOCAL)
    registry.quotas.set(QuotaRequest(scope="principal", name="ann", requests=3))
    site.state.read_request_limits()
    url = f"/acme/tone/resolve/main/{CONFIG}"
    statuses = [site.ask(site.quick, "HEAD", url, "reader").status for _ in range(4)]
    assert statuses == [200, 200, 200, 503]
    registry.quotas.remove(QuotaSubject("principal", "ann"))


def test_downloads_that_were_counted_are_stored_together(site: Site) -> None:
    registry = site.state.registry(LOCAL)
    for number, times in ((1, 2), (2, 3)):
        for _ in range(times):
            assert (
                site.ask(site.quick, "GET", f"/acme/tone/resolve/v{number}/{WEIGHTS}", "reader").status == 200
            )
        site.ask(site.quick, "HEAD", f"/acme/tone/resolve/v{number}/{WEIGHTS}", "reader")
    site.state.store_downloads()
    site.state.store_downloads()
    counted = {one.number: one.downloads for one in registry.versions.list(TONE).items}
    assert counted == {1: 2, 2: 3}
    assert registry.adapters.get(TONE).downloads == 5


def test_downloads_of_a_deleted_adapter_are_not_counted(site: Site) -> None:
    site.ask(site.quick, "GET", f"/acme/new/resolve/main/{WEIGHTS}", "reader")
    site.ask(site.quick, "GET", f"/acme/tone/resolve/v1/{WEIGHTS}", "reader")
    registry = site.state.registry(LOCAL)
    registry.adapters.delete(AdapterName.parse("acme/new"))
    site.state.store_downloads()
    assert registry.adapters.get(TONE).downloads == 1


def _without_ids(entry: dict[str, Any]) -> dict[str, Any]:
    """(`Any`: columns of a row.)"""
    reason = json.loads(entry["detail"])["reason"]
    return {**{key: entry[key] for key in entry.keys() - {"at", "request", "detail"}}, "reason": reason}


def _without_request_ids(head: bytes) -> bytes:
    return re.sub(rb"(?<=request-id: )[0-9a-f]{16}\r\n", b"", head)


def _authorization(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _scope(method: str, url: str, headers: Mapping[str, str], app: FastAPI) -> Scope:
    path, _, query = url.partition("?")
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"here"), *((name.encode(), text.encode()) for name, text in headers.items())],
        "client": ("127.0.0.1", 1),
        "state": {"request_id": "0"},
        "app": app,
    }


async def _ask(
    target: Callable[..., object],
    method: str,
    url: str,
    headers: Mapping[str, str],
    app: FastAPI | None = None,
) -> Answered:
    """Makes one request. The event loop is new each time, so no part of the application may depend on it."""
    app = app or target  # type: ignore[assignment]
    assert isinstance(app, FastAPI)
    scope, sent = _scope(method, url, headers, app), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await target(scope, receive, send)  # type: ignore[misc]
    route, identity = scope.get("route"), scope["state"].get("identity")
    return Answered(
        sent[0]["status"],
        [header for header in sent[0]["headers"] if header[0] not in _NEW],
        b"".join(message.get("body", b"") for message in sent[1:]) if method != "HEAD" else b"",
        getattr(route, "path", None),
        getattr(identity, "name", None),
    )
