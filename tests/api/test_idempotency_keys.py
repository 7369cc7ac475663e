"""A request with an idempotency key may be repeated if its response was lost; it takes effect once."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.protocol import join_parts
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import idempotency
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import RawResponse, Server, assert_problem

TONE = AdapterName.parse("acme/tone")
AT = "/api/v1/adapters/acme/tone"
METRICS = f"{AT}/versions/1/metrics"


@pytest.fixture
def ask(server: Server) -> Callable[..., RawResponse]:
    """Sends a request with a key."""

    def send(method: str, path: str, body: object, key: str = "k1", **headers: str) -> RawResponse:
        sent = {"Idempotency-Key": key, **{name.replace("_", "-"): text for name, text in headers.items()}}
        return server.call(method, path, body, headers=sent)

    return send


def is_replay(answer: RawResponse) -> bool:
    return answer.headers.get("Idempotent-Replay") == "true"


def creations(server: Server, digest: str) -> dict[str, tuple[str, str, Any, dict[str, str]]]:
    """Every kind of request that creates something, and would fail or create more if it were sent again
    without a key.
    """
    return {
        "adapter": ("POST", "/api/v1/adapters", {"name": "acme/voice"}, {}),
        "metrics": ("POST", METRICS, {"metrics": {"accuracy": 0.5}}, {}),
        "alias": ("PUT", f"{AT}/aliases/prod", {"to": digest}, {"If_None_Match": "*"}),
    }


@pytest.mark.parametrize("kind", ["adapter", "metrics", "alias"])
def test_a_creation_sent_again_with_its_key_is_answered_as_before_and_not_repeated(
    server: Server, ask: Callable[..., RawResponse], tone: Adapter, kind: str
) -> None:
    digest = str(push(server.registry(), tone, TONE).version.digest)
    method, path, body, headers = creations(server, digest)[kind]
    first = ask(method, path, body, **headers)
    again = ask(method, path, body, **headers)
    assert first.status < 300
    assert (again.status, again.body) == (first.status, first.body)
    assert (is_replay(first), is_replay(again)) == (False, True)
    assert first.headers.get("ETag") == again.headers.get("ETag")
    assert len(server.registry().metrics.list(Ref(TONE))) == (1 if kind == "metrics" else 0)


def test_a_repeated_push_with_its_key_is_still_reported_as_new(
    server: Server, ask: Callable[..., RawResponse], tone: Adapter
) -> None:
    registry = server.registry()
    pushed = push(registry, tone, TONE)
    manifest = server.call("GET", f"{AT}/revisions/{pushed.version.digest}/manifest").body
    server.call("DELETE", AT)
    for path in sorted(tone.content.sizes):
        whole = tone.content.read_all(path, 1 << 20)
        session = registry.uploads.open(TONE, Digest.of(whole), len(whole))
        registry.uploads.finish(registry.uploads.append(session, 0, [whole]))
    body = {"manifest": base64.b64encode(manifest).decode()}
    first, again = (ask("POST", f"{AT}/revisions", body) for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert again.json == first.json
    assert is_replay(again)


def test_a_repeated_push_with_files_and_its_key_is_still_reported_as_new(
    server: Server, tone: Adapter
) -> None:
    body = framed(tone)
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/octet-stream"}
    first, again = (
        server.call("POST", f"{AT}/revisions/with-files", body, headers=headers) for _ in range(2)
    )
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert (is_replay(first), is_replay(again)) == (False, True)
    unlike = server.call("POST", f"{AT}/revisions/with-files", body + bytes(4), headers=headers)
    assert_problem(unlike, 422, "invalid_manifest")


def test_pushes_that_arrive_together_are_recorded_under_their_own_requests(
    server: Server, tmp_path: Path
) -> None:
    kind = {"Content-Type": "application/octet-stream"}
    bodies = [framed(open_dir(tiny_lora(tmp_path / str(seed), seed=seed))) for seed in range(8)]
    refused = {3: bodies[3][:-1] + b"x"}  # does not match the manifest's digest

    def send(number: int) -> RawResponse:
        path = f"/api/v1/adapters/acme/tone-{number}/revisions/with-files"
        return server.call("POST", path, refused.get(number, bodies[number]), headers=kind)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert [answer.status for answer in answers] == [409 if number in refused else 201 for number in range(8)]
    pushed = server.registry().audit.list(AuditFilter(action="version.push")).items
    assert {entry.request for entry in pushed} == {
        answer.headers["Request-Id"] for answer in answers if answer.status == 201
    }


def test_a_malformed_push_with_files_gets_the_reason(server: Server, tone: Adapter) -> None:
    kind = {"Content-Type": "application/octet-stream"}

    def send(body: bytes, headers: dict[str, str] = kind) -> RawResponse:
        return server.call("POST", f"{AT}/revisions/with-files", body, headers=headers)

    assert_problem(send(framed(tone)[:-1]), 400, "invalid")
    assert_problem(send(b""), 400, "invalid")
    assert_problem(send(join_parts([b"[]"])), 400, "invalid")
    assert_problem(send(join_parts([b'{"manifest": 3}'])), 400, "invalid")
    assert_problem(send(bytes(11 << 20)), 413, "too_large")
    assert_problem(send(b"{}", {"Content-Type": "application/json"}), 415, "unsupported")
    assert_problem(send(framed(tone), {**kind, "Idempotency-Key": "k" * 256}), 422, "invalid")
    assert_problem(
        server.call("POST", f"{AT}/revisions/with-files", framed(tone), token=None, headers=kind),
        401,
        "unauthenticated",
    )
    assert server.registry().adapters.list().items == ()


def framed(adapter: Adapter) -> bytes:
    """The body of a push with files."""
    contents = {path: adapter.content.read_all(path, 1 << 20) for path in sorted(adapter.content.sizes)}
    manifest = Manifest.of({path: (len(data), Digest.of(data)) for path, data in contents.items()})
    document = {"manifest": base64.b64encode(manifest.to_bytes()).decode()}
    return join_parts([json.dumps(document).encode(), *contents.values()])


def test_a_key_used_with_another_request_is_a_conflict(ask: Callable[..., RawResponse]) -> None:
    ask("POST", "/api/v1/adapters", {"name": "acme/tone"})
    assert_problem(ask("POST", "/api/v1/adapters", {"name": "acme/voice"}), 409, "conflict")


def test_another_key_is_another_request(ask: Callable[..., RawResponse]) -> None:
    ask("POST", "/api/v1/adapters", {"name": "acme/tone"})
    assert_problem(ask("POST", "/api/v1/adapters", {"name": "acme/tone"}, key="k2"), 409, "conflict")


def test_a_key_belongs_to_its_caller(server: Server, ask: Callable[..., RawResponse]) -> None:
    ask("POST", "/api/v1/adapters", {"name": "acme/tone"})
    theirs = server.token("eve", "writer", ("evil",))
    headers = {"Idempotency-Key": "k1"}
    answer = server.call("POST", "/api/v1/adapters", {"name": "acme/tone"}, token=theirs, headers=headers)
    assert answer.status >= 400
    mine = server.call("POST", "/api/v1/adapters", {"name": "evil/tone"}, token=theirs, headers=headers)
    assert (mine.status, is_replay(mine)) == (201, False)


def test_a_failed_request_may_be_retried_with_its_key(
    server: Server, ask: Callable[..., RawResponse], tone: Adapter
) -> None:
    assert_problem(ask("POST", METRICS, {"metrics": {"accuracy": 0.5}}), 404, "not_found")
    push(server.registry(), tone, TONE)
    assert ask("POST", METRICS, {"metrics": {"accuracy": 0.5}}).status == 204


def test_identical_concurrent_requests_are_carried_out_once(
    server: Server, ask: Callable[..., RawResponse], tone: Adapter
) -> None:
    push(server.registry(), tone, TONE)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask("POST", METRICS, {"metrics": {"accuracy": 0.5}}), range(6)))
    assert {answer.status for answer in answers} == {204}
    assert sorted(map(is_replay, answers)) == [False] + [True] * 5
    assert len(server.registry().metrics.list(Ref(TONE))) == 1


def test_a_key_is_forgotten_after_a_day(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs(), clock=lambda: now[0]))
    asking = registry.on_behalf_of(registry.identity, IdempotencyKey("k1", Digest.of(b"request")))
    made = asking.adapters.create(TONE, AdapterEdit())
    now[0] += timedelta(hours=23)
    assert asking.adapters.create(TONE, AdapterEdit()) == made
    now[0] += timedelta(hours=2)
    with pytest.raises(Conflict, match="taken"):
        asking.adapters.create(TONE, AdapterEdit())


def test_a_creation_deletes_only_some_of_many_old_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other writers wait for such a creation. A key whose old response is still stored can be used again."""
    monkeypatch.setattr(idempotency, "MAX_DELETED", 2)
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs(), clock=lambda: now[0]))

    def create(key: int, name: str) -> None:
        asking = registry.on_behalf_of(registry.identity, IdempotencyKey(f"k{key}", Digest.of(b"request")))
        asking.adapters.create(AdapterName.parse(name), AdapterEdit())

    def answers() -> int:
        with registry.catalog.read() as tx:
            return int(tx.execute(text("SELECT count(*) FROM answers")).scalar_one())

    for number in range(7):
        create(number, f"acme/old-{number}")
        now[0] += timedelta(minutes=1)
    now[0] += timedelta(days=2)
    create(6, "acme/new-6")
    assert answers() == 5  # two are deleted, and the old response of this key is replaced
    create(6, "acme/new-6")
    create(7, "acme/new-7")
    assert answers() == 4
    collect_garbage(registry)
    assert answers() == 2
