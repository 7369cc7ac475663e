"""Hostile input of every kind gets a response that is not a 5xx, and delays no other client."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from adaptry.adapters import header_process, patterns
from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.processes import json_check
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.records import PushOptions
from adaptry.registry.webhooks import WebhookRequest
from adaptry.storage.catalog import cursors
from adaptry.testing.samples import tiny_lora
from adaptry_api.bodies import ANONYMOUS_JSON_LIMIT
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import RawResponse, Server, assert_problem, running_server

_PLACES = (
    "x", "-1", "01", "1.0", "1e3", "\u0661", "9" * 19, str(2**63), str(2**64), "9" * 300, "\x00", "\n",
    "acme/\x00", "{}", "[]", "null", "1,2", "1970-01-01", "\ud7ff", "é",
)  # fmt: skip
_TEXTS = (
    "", "x", "-1", "0", "1e9", str(2**63), str(2**64), "9" * 40, "9" * 5000, '"x"', '"-1"', f'"{2**63}"',
    f'"{2**64}"', '""', "*", "W/\"1\"", "AAAA", "A" * 4000, "a.b", "a.b.c", ".", "..", "%00", "%ff", "\u00e9",
    "null", "{}", "' OR 1=1--", "bytes=-", "bytes=0-", f"bytes={2**70}-", f"bytes=-{2**70}", "bytes=1-0",
    "bytes=0-1,2-3", "bytes=a-b",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with running_server(ServerSettings(data=folder / "data")) as running:
        tone = open_dir(tiny_lora(folder / "tone"))
        push(running.registry(), tone, "acme/tone", options=PushOptions(alias="prod", metrics={"f1": 0.5}))
        yield running


def listings(server: Server) -> dict[str, Any]:
    """The routes of the interface's own description that take a cursor."""
    paths = server.call("GET", "/api/v1/openapi.json").json["paths"]
    return {
        path: methods["get"]
        for path, methods in paths.items()
        if any(parameter["name"] == "cursor" for parameter in methods.get("get", {}).get("parameters", ()))
    }


def test_a_forged_cursor_is_400_on_every_listing(server: Server) -> None:
    job = server.registry().jobs.submit(JobOrder(kind="verify", task={})).id
    hook = server.registry().webhooks.add(WebhookRequest(namespace="acme", url="https://ci.example.com/"))
    real = {
        "id": hook.webhook.id,
        "namespace": "acme",
        "name": "tone",
        "branch": "main",
        "revision": "main",
        "selector": "1",
        "job": job,
        "path": "",
    }
    abouts = [
        "adapters ",
        "adapters acme",
        "bases",
        "workers",
        "search ",
        "jobs None",
        f"log {job}",
        "uploads ",
        f"deliveries {hook.webhook.id}",
        "promotions 1 None",
    ]
    abouts += [f"{kind} {key}" for kind in ("versions", "events", "commits", "tensors") for key in (1, 2)]
    found = listings(server)
    assert len(found) >= 8
    for path in found:
        at = path.format_map(real)
        for about in abouts:
            for place in _PLACES:
                cursor = cursors.encode(place.encode("utf-8", "replace").decode(), about)
                answer = server.call("GET", f"{at}?cursor={quote(cursor)}")
                if answer.status == 200:  # a possible position in a listing by name
                    assert path in ("/api/v1/adapters", "/api/v1/workers", "/api/v1/uploads"), (path, place)
                    assert place.isprintable(), (path, place)
                else:
                    assert_problem(answer, 400, answer.json["code"])
                    assert "cursor" in answer.json["detail"]


def test_no_forged_cursor_makes_the_hubs_listings_fail(server: Server) -> None:
    forged = [
        *_TEXTS, *(f"{text}.{text}" for text in _TEXTS),
        *(f"0.{cursors.encode(place, 'adapters ')}" for place in _PLACES),
        *(cursors.encode(place, f"commits {key}") for place in _PLACES for key in (1, 2)),
    ]  # fmt: skip
    for path in ("/api/models", "/api/models/acme/tone/commits/main", "/api/models/acme/tone/tree/main"):
        for text in forged:
            assert server.call("GET", f"{path}?cursor={quote(text)}").status < 500, (path, text)


@pytest.mark.parametrize(
    "header", ["If-Match", "If-None-Match", "Range", "Idempotency-Key", "Last-Event-ID", "Upload-Offset"]
)
def test_no_forged_header_makes_the_server_fail(server: Server, header: str) -> None:
    digest = server.call("GET", "/api/v1/adapters/acme/tone/versions/1").json["digest"]
    at = "/api/v1/adapters/acme/tone"
    calls: list[tuple[str, str, object]] = [
        ("GET", at, None), ("GET", f"{at}/revisions/{digest}/files/adapter_config.json", None),
        ("GET", "/acme/tone/resolve/main/adapter_config.json", None), ("GET", "/api/v1/events?limit=0", None),
        ("PUT", f"{at}/aliases/prod", {"to": digest}), ("DELETE", f"{at}/aliases/none", None),
        ("PUT", f"{at}/revisions/{digest}/state", {"state": "active"}), ("PATCH", at, {}),
        ("POST", "/api/v1/jobs", {"kind": "nothing", "task": {}}), ("PATCH", "/api/v1/uploads/x", b"x"),
    ]  # fmt: skip
    for method, path, body in calls:
        for text in _TEXTS:
            if "\u00e9" in text:
                continue  # urllib3 sends Latin-1 only
            sent = (
                {header: text, "Content-Type": "application/octet-stream"} if body == b"x" else {header: text}
            )
            assert server.call(method, path, body, headers=sent).status < 500, (method, path, text)


def test_no_forged_id_or_grant_makes_the_server_fail(server: Server) -> None:
    for text in _TEXTS:
        word = quote(text, safe="")
        calls = [
            ("POST", f"/api/v1/uploads/{word}/finish", {"offset": 2**70, "size": 2**70}),
            ("PUT", f"/api/lfs/parts?grant={word}", b"x"),
            ("GET", f"/api/v1/jobs/{word}", None),
            ("DELETE", f"/api/v1/tokens/{word}", None),
            ("GET", f"/api/v1/events?after={word}", None),
            ("GET", f"/api/v1/adapters/acme/tone/versions/{word}", None),
            ("GET", f"/api/v1/search?q=rank%3E{word}", None),
        ]
        for method, path, body in calls:
            answer = server.call(method, path, body)
            assert answer.status < 500, (method, path, answer.body)


def test_an_open_address_reads_a_small_body_only(server: Server) -> None:
    body = b'{"token":"' + b"x" * ANONYMOUS_JSON_LIMIT + b'"}'
    sent = {"Content-Type": "application/json"}
    answer = server.call("POST", "/api/v1/tokens/revoke", body, token=None, headers=sent)
    assert_problem(answer, 413, "too_large")
    assert server.call("POST", "/api/v1/tokens/revoke", {"token": "x" * 512}, token=None).status == 202


BODIES = {
    "one key twice": b"{" + b",".join(b'"%06d":1' % n for n in range(19_990)) + b',"000000":1}',
    "all keys twice": b"{" + b",".join(b'"%06d":1' % (n // 2) for n in range(19_990)) + b"}",
    "an open text": b'{"name":"' + b'\\"' * (1 << 19),
    "deep": b"[" * 100_000,
    "wide": b"[" + b"0," * (1 << 19) + b"0]",
    "long number": b'{"name":' + b"9" * (1 << 20) + b"}",
    "half characters": b'{"name":"' + b"\\ud800" * 100_000 + b'"}',
    "unknown keys": b"{" + b",".join(b'"%06d":1' % n for n in range(19_000)) + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_hostile_body_is_refused(server: Server, body: bytes) -> None:
    sent = {"Content-Type": "application/json"}
    for path in (
        "/api/v1/adapters",
        "/api/v1/jobs",
        "/api/repos/create",
        "/acme/tone.git/info/lfs/objects/batch",
    ):
        answer = server.call("POST", path, body, headers=sent)
        assert 400 <= answer.status < 500, (path, answer.body[:200])
        assert len(answer.body) < 2000


def test_a_document_with_many_faults_is_refused_without_a_list_of_them(server: Server) -> None:
    for count in (100, 3000, 19_000):  # on the event loop, and in a child process
        body = {f"{number:06d}": 1 for number in range(count)}
        for path in ("/api/v1/adapters/acme/tone/uploads", "/acme/tone.git/info/lfs/objects/batch"):
            answer = server.call("POST", path, body)
            assert 400 <= answer.status < 500, (path, answer.body)
            assert len(answer.body) < 500
        assert_problem(server.call("POST", "/api/v1/jobs", body), 400, "invalid")
        assert (
            f"{count + 2:,} unknown or malformed values"
            in server.call("POST", "/api/v1/jobs", body).json["detail"]
        )


def test_only_administrators_large_records_are_parsed(server: Server) -> None:
    writer = server.token("bob", "writer", ("acme",))
    sent = {"Content-Type": "application/json"}
    answer = server.call("POST", "/api/v1/bases", b"[" * 100_000, token=writer, headers=sent)
    assert_problem(answer, 403, "denied")


@pytest.mark.parametrize("table", ["tensors", "sketches", "file_hashes"])
def test_a_bases_record_is_refused_at_its_first_fault(server: Server, table: str) -> None:
    entries = {f"layer.{number}": 1 for number in range(20_000)}
    answer = server.call("POST", "/api/v1/bases", {"record": {table: entries}})
    assert_problem(answer, 400, "invalid")
    assert f"record.{table}.layer.0" in answer.json["detail"]


class Held:
    """A function that waits from its call until it is released."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.entered, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *values: Any, **named: Any) -> Any:
        self.entered.set()
        assert self.let_go.wait(120)
        return self._function(*values, **named)


def honest(server: Server) -> list[int]:
    paths = ("/healthz", "/api/v1/adapters", "/api/v1/adapters/acme/tone/versions", "/api/models/acme/tone")
    return [server.call("GET", path).status for path in paths]


def while_held(server: Server, held: Held, hostile: Callable[[], object]) -> object:
    """The result of the hostile call, during which honest calls were answered."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(hostile)
        try:
            assert held.entered.wait(120)
            assert honest(server) == [200] * 4
            assert not waiting.done()
        finally:
            held.let_go.set()
        return waiting.result(120)


def test_an_honest_request_is_answered_while_a_large_body_is_parsed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(json_check.run_in_worker)
    monkeypatch.setattr(json_check, "run_in_worker", held)
    sent = {"Content-Type": "application/json"}

    def hostile() -> RawResponse:
        return server.call("POST", "/api/v1/adapters", BODIES["all keys twice"], headers=sent)

    answer = while_held(server, held, hostile)
    assert isinstance(answer, RawResponse)
    assert_problem(answer, 400, "invalid")


def test_an_honest_request_is_answered_while_patterns_are_matched(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tiny_lora(tmp_path_factory.mktemp("slow") / "slow", seed=7)
    fields = json.loads((folder / "adapter_config.json").read_text())
    fields["rank_pattern"] = {r"(?!(?:[\w.]+)+!)x": 4}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    slow = open_dir(folder)
    patterns._kept.clear()
    held = Held(patterns.run_bounded)
    # The client also reads the adapter, before the server does.
    assert "pattern_refused" in slow.spec.traits
    patterns._kept.clear()
    monkeypatch.setattr(patterns, "run_bounded", held)
    assert isinstance(while_held(server, held, lambda: refused(server, slow)), str)


def refused(server: Server, adapter: Adapter) -> str:
    with pytest.raises(Exception, match="could take hours") as caught:
        push(server.registry(), adapter, "acme/slow")
    return str(caught.value)


@pytest.mark.parametrize(
    ("entries", "module", "function"),
    [(300_000, header_process, "run_in_worker"), (400_000, subprocess, "run")],
    ids=["a limited process", "a derivation process"],
)
def test_an_honest_request_is_answered_while_a_long_header_is_read(
    server: Server, monkeypatch: pytest.MonkeyPatch, entries: int, module: object, function: str
) -> None:
    raw = b'{"a":[' + b"[]," * entries + b"[]]}"
    config = b'{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q"]}'
    files = {"adapter_config.json": config, "adapter_model.safetensors": len(raw).to_bytes(8, "little") + raw}
    for data in files.values():
        upload(server, data)
    manifest = strictjson.canonical(
        {
            "files": [
                {"path": path, "size": len(data), "sha256": str(Digest.of(data))}
                for path, data in files.items()
            ],
            "schema": 1,
        }
    )
    held = Held(getattr(module, function))
    monkeypatch.setattr(module, function, held)

    def hostile() -> RawResponse:
        body = {"manifest": base64.b64encode(manifest).decode()}
        return server.call("POST", "/api/v1/adapters/acme/tone/revisions", body)

    answer = while_held(server, held, hostile)
    assert isinstance(answer, RawResponse)
    assert_problem(answer, 422, "invalid_weights")


def upload(server: Server, data: bytes) -> None:
    size = len(data)
    at = "/api/v1/adapters/acme/tone/uploads"
    opened = server.call("POST", at, {"digest": str(Digest.of(data)), "size": size}).json
    if opened is None or opened.get("is_done"):
        return
    sent = {"Content-Type": "application/octet-stream", "Upload-Offset": "0", "Upload-Size": str(size)}
    assert server.call("PATCH", f"/api/v1/uploads/{opened['id']}", data, headers=sent).status < 300
    done = server.call("POST", f"/api/v1/uploads/{opened['id']}/finish", {"offset": size, "size": size})
    assert done.status == 204, done.body
