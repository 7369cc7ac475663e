"""Events over HTTP: long polls and streams with many concurrent listeners, until their token ends or the
server stops.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName
from adaptry.registry.events import NameFilter
from adaptry.registry.records import AdapterEdit, EventBatch
from adaptry.storage.catalog import events as kept
from adaptry.storage.connect import open_local
from adaptry.storage.local.context import utc_now
from adaptry.testing.postgres import PostgresServer
from adaptry_api.event_stream import EventBroadcaster
from adaptry_api.settings import ServerSettings
from adaptry_api.shutdown import DrainState
from adaptry_api.testing import Server, assert_problem, running_server

EVENTS = "/api/v1/events"
LONG = 60.0


class Stream:
    """A stream of server-sent events; `read` returns the next event, without comments and markers."""

    def __init__(
        self, server: Server, token: str, after: int | None = None, adapter: str | None = None, **headers: str
    ) -> None:
        parts = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=LONG)
        query = {"after": after, "adapter": adapter}
        path = f"{EVENTS}?{urlencode({name: value for name, value in query.items() if value is not None})}"
        sent = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", **headers}
        self._connection.request("GET", path, headers=sent)
        self.answer = self._connection.getresponse()

    def block(self) -> dict[str, str]:
        """The lines up to an empty line; no lines at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self.answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name or "comment"] = value
        return fields

    def begun(self) -> Stream:
        """Waits until the server has looked for events once, so that it notices all further ones."""
        while "id" not in self.block():
            pass
        return self

    def read(self) -> dict[str, str]:
        while (fields := self.block()) and "data" not in fields:
            pass
        return fields

    def close(self) -> None:
        self._connection.close()


@contextmanager
def streaming(server: Server, token: str, **options: str | int | None) -> Iterator[Stream]:
    stream = Stream(server, token, **options)  # type: ignore[arg-type]  # passed on as given
    try:
        yield stream
    finally:
        stream.close()


def create(server: Server, name: str) -> None:
    server.registry().adapters.create(AdapterName.parse(name), AdapterEdit())


def test_a_stream_sends_numbered_events_and_resumes_after_the_last(server: Server) -> None:
    create(server, "acme/a")
    with streaming(server, server.admin) as stream:
        assert stream.answer.getheader("Content-Type", "").startswith("text/event-stream")
        stream.begun()
        create(server, "acme/b")
        heard = stream.read()
        assert heard["event"] == "adapter.created"
        assert json.loads(heard["data"])["name"] == "acme/b"
    create(server, "acme/c")
    with streaming(server, server.admin, **{"Last-Event-ID": heard["id"]}) as again:
        assert json.loads(again.read()["data"])["name"] == "acme/c"


def test_a_stream_sends_keep_alive_lines_that_skip_hidden_events(
    start: Callable[..., Server],
) -> None:
    server = start(heartbeat=0.05)
    with streaming(server, server.token("eve", "reader", ("evil",))) as stream:
        stream.begun()
        create(server, "acme/a")
        while stream.block().get("id") != "1":
            pass


def test_each_of_many_streams_gets_the_events_of_its_token_and_its_filter(
    start: Callable[..., Server],
) -> None:
    server = start(heartbeat=0.05)
    tokens = {namespace: server.token(namespace, "reader", (namespace,)) for namespace in ("acme", "evil")}
    expected = {
        ("acme", None): ["acme/a", "acme/b", "acme/last"],
        ("acme", "acme/b"): ["acme/b"],
        ("evil", None): ["evil/a", "evil/last"],
        ("evil", "acme/*"): [],
        ("evil", "*/last"): ["evil/last"],
    }
    created = ("acme/a", "evil/a", "acme/b", "acme/last", "evil/last")
    with ExitStack() as stack:
        streams = [
            (names, stack.enter_context(streaming(server, tokens[namespace], adapter=glob)).begun())
            for (namespace, glob), names in expected.items()
            for _ in range(3)
        ]
        for name in created:
            create(server, name)
        for names, stream in streams:
            heard = []
            while "data" in (fields := stream.block()) or fields.get("id") != str(len(created)):
                heard += [json.loads(fields["data"])["name"]] if "data" in fields else []
            assert heard == names


@pytest.mark.parametrize(
    "headers", [{"Last-Event-ID": "x"}, {"Last-Event-ID": "-1"}, {"Last-Event-ID": "9" * 19}]
)
def test_a_malformed_last_number_is_refused(server: Server, headers: dict[str, str]) -> None:
    answer = server.call("GET", EVENTS, headers={**headers, "Accept": "text/event-stream"})
    assert_problem(answer, 400, "invalid")


def test_a_stream_requires_a_token(server: Server) -> None:
    assert_problem(server.call("GET", EVENTS, token=None), 401, "unauthenticated")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_revoking_a_token_ends_its_streams(start: Callable[..., Server], accept: str) -> None:
    server = start(heartbeat=0.05)
    token = server.token("ada", "writer", ("acme",))
    (listed,) = (one for one in server.call("GET", "/api/v1/tokens").json["items"] if one["name"] == "ada")

    def revoke() -> None:
        assert server.call("DELETE", f"/api/v1/tokens/{listed['id']}").status == 204
        create(server, "acme/unheard")

    if accept == "application/json":
        with ThreadPoolExecutor(1) as pool:
            path = f"{EVENTS}?after=0&wait=30"
            heard = pool.submit(server.call, "GET", path, token=token)
            revoke()
            assert_problem(heard.result(LONG), 401, "unauthenticated")
        return
    with streaming(server, token) as stream:
        stream.begun()
        revoke()
        assert stream.read() == {}


def test_a_server_that_stops_ends_its_streams(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        with running_server(ServerSettings(data=tmp_path / "data")) as server:
            stream = stack.enter_context(streaming(server, server.admin)).begun()
            ended = pool.submit(stream.read)
        assert ended.result(LONG) == {}


LISTENERS = [
    pytest.param(100, id="100"),
    pytest.param(1000, id="1000", marks=pytest.mark.heavy),
]


@pytest.mark.parametrize("count", LISTENERS)
def test_listeners_need_no_thread_each_and_all_get_events(server: Server, count: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(streaming(server, server.admin)).begun()
        before = threading.active_count()
        streams = [stack.enter_context(streaming(server, server.admin)) for _ in range(count)]
        for stream in streams:
            stream.begun()
        assert threading.active_count() - before < count / 2
        create(server, "acme/tone")
        assert {json.loads(stream.read()["data"])["name"] for stream in streams} == {"acme/tone"}


def test_listeners_that_connect_at_once_share_a_read_and_later_ones_do_not(tmp_path: Path) -> None:
    with closing(open_local(tmp_path / "data")) as registry:
        registry.adapters.create(AdapterName.parse("acme/tone"), AdapterEdit())

        async def identify() -> Identity:
            return LOCAL

        async def listen() -> tuple[list[EventBatch], EventBatch, EventBatch]:
            broadcaster = EventBroadcaster(registry.catalog, DrainState())

            def ask(*about: str) -> Awaitable[EventBatch]:
                return broadcaster.next_events(identify, 0, 50, 0.0, NameFilter(about))

            await ask()
            *same, other = await asyncio.gather(*(ask() for _ in range(50)), ask("other/*"))
            registry.adapters.create(AdapterName.parse("acme/voice"), AdapterEdit())
            later = await ask()
            await broadcaster.close()
            return same, other, later

        same, other, later = asyncio.run(listen())

    assert len({id(one) for one in same}) == 1
    assert [str(one.name) for one in same[0].items] == ["acme/tone"]
    assert other.items == ()
    assert [str(one.name) for one in later.items] == ["acme/tone", "acme/voice"]


def test_a_listener_that_does_not_read_is_disconnected(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines = pytest.importorskip("adaptry_api.deadlines", reason="httptools is not installed")
    monkeypatch.setattr(deadlines.DeadlineProtocol, "read_seconds", 0.2)
    catalog = open_local(server.data).catalog
    with catalog.write() as tx:  # more than the sockets' buffers hold
        for _ in range(4000):
            kept.record(tx, "base.updated", at=utc_now(), by="x", detail={"names": "x" * 8000})
    catalog.close()
    with streaming(server, server.admin, after=0) as stalled, streaming(server, server.admin) as other:
        other.begun()
        server.metrics_with('route="/api/v1/events"')  # it is released
        numbers = []
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            while heard := stalled.read():
                numbers.append(heard["id"])
            raise ConnectionError
        assert len(numbers) < 4000
        create(server, "acme/tone")
        assert other.read()["event"] == "adapter.created"


@pytest.fixture
def pair(postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    settings = ServerSettings(data=tmp_path / "data", catalog=postgres.database())
    with running_server(settings) as one, running_server(settings) as other:
        yield one, other


def test_events_at_one_replica_are_delivered_at_the_other(pair: tuple[Server, Server]) -> None:
    one, other = pair
    with streaming(other, one.admin) as stream, ThreadPoolExecutor(1) as pool:
        stream.begun()
        polled = pool.submit(other.registry(one.admin).events.read, 0, 50, LONG)
        create(one, "acme/tone")
        assert json.loads(stream.read()["data"])["name"] == "acme/tone"
        assert str(polled.result(LONG).items[0].name) == "acme/tone"


def test_a_database_that_restarts_loses_no_event(
    pair: tuple[Server, Server], postgres: PostgresServer
) -> None:
    """A stream may end while callers cannot be identified; a new one continues after the last number."""
    one, other = pair
    with streaming(other, one.admin) as stream:
        stream.begun()
        create(one, "acme/before")
        heard = stream.read()
        assert json.loads(heard["data"])["name"] == "acme/before"
        postgres.crash()
        create(one, "acme/after")
        after = stream.read()
    if "data" not in after:
        with streaming(other, one.admin, **{"Last-Event-ID": heard["id"]}) as again:
            after = again.read()
    assert json.loads(after["data"])["name"] == "acme/after"


def test_two_servers_on_one_folder_deliver_each_others_events(tmp_path: Path) -> None:
    settings = ServerSettings(data=tmp_path / "data")
    with (
        running_server(settings) as one,
        running_server(settings) as other,
        streaming(other, one.admin) as stream,
    ):
        stream.begun()
        create(one, "acme/tone")
        assert json.loads(stream.read()["data"])["name"] == "acme/tone"
