"""Rules for requests (bodies, limits, versions), and headers that every response has."""

from __future__ import annotations

import re
import socket
import sqlite3
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from adaptry import __version__
from adaptry.adapters.adapter import Adapter
from adaptry.core.errors import AdaptryError, by_code
from adaptry.operations.transfer import push
from adaptry.registry import protocol
from adaptry.registry.http import HttpRegistry
from adaptry_api.errors import STATUS, status_of
from adaptry_api.testing import Server, assert_problem

ADAPTERS = "/api/v1/adapters"


def test_every_response_has_security_headers_and_those_of_the_api_have_its_version(server: Server) -> None:
    ours = {protocol.API_HEADER: str(protocol.API)}
    for answer, has_version in (
        (server.call("GET", "/api/v1"), True),
        (server.call("GET", "/api/v1", token=None), True),
        (server.call("GET", "/nothing", token=None, headers=ours), True),
        (server.call("GET", "/healthz", token=None), False),
        (server.call("GET", "/nothing", token=None), False),
        (server.call("GET", "/api/models/acme/tone", token=None), False),
    ):
        versions = {name: answer.headers.get(name) for name in (protocol.API_HEADER, protocol.SCHEMA_HEADER)}
        assert set(versions.values()) == ({"1"} if has_version else {None})
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        (request_id,) = (
            answer.headers[name] for name in ("Request-Id", "X-Request-Id") if name in answer.headers
        )
        assert len(request_id) == 16


def test_a_server_reports_its_version_and_the_callers_identity(
    server: Server, registry: HttpRegistry
) -> None:
    about = registry.about()
    assert (about.version, about.api, about.manifest_schema) == (__version__, protocol.API, 1)
    assert (about.identity, about.role, about.namespaces) == ("root", "admin", ("*",))
    assert server.call("GET", "/api/v1").json["limits"]["files"] == 32


def test_every_error_class_has_a_status() -> None:
    for kind in by_code().values():
        assert 400 <= status_of(kind("what went wrong")) < 600
    assert set(STATUS) <= set(by_code().values())


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b'{"name": "a/b", "name": "a/c"}', "application/json", 400, "invalid"),
        (b'{"name": "a/b"', "application/json", 400, "invalid"),
        (b"\xff\xfe", "application/json", 400, "invalid"),
        (b'{"name": NaN}', "application/json", 400, "invalid"),
        (b"[" * 100_000, "application/json", 400, "invalid"),
        (b'{"name": "a/b", "owner": "me"}', "application/json", 422, "invalid"),
        (b'{"name": 7}', "application/json", 422, "invalid"),
        (b"[]", "application/json", 422, "invalid"),
        (b"", "application/json", 422, "invalid"),
        (b'{"name": "a/b"}', "text/plain", 415, "unsupported"),
        (b'{"name": "a/b"}', "multipart/form-data; boundary=x", 415, "unsupported"),
    ],
    ids=ascii,
)
def test_an_ambiguous_body_is_refused(server: Server, body: bytes, kind: str, status: int, code: str) -> None:
    answer = server.call("POST", ADAPTERS, body, headers={"Content-Type": kind})
    assert_problem(answer, status, code)
    assert server.call("GET", ADAPTERS).json["items"] == []


def test_a_body_over_the_limit_is_refused_with_and_without_a_declared_length(server: Server) -> None:
    body = b'{"name": "a/b", "description": "' + b"x" * protocol.JSON_LIMIT + b'"}'
    headers = {"Content-Type": "application/json"}
    assert_problem(server.call("POST", ADAPTERS, body, headers=headers), 413, "too_large")
    chunked = {**headers, "Transfer-Encoding": "chunked"}
    assert_problem(server.call("POST", ADAPTERS, body, headers=chunked), 413, "too_large")


def test_a_compressed_body_is_not_inflated(server: Server) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_problem(server.call("POST", ADAPTERS, b"\x1f\x8b", headers=headers), 415, "unsupported")


def test_an_unknown_address_or_method_is_a_problem_too(server: Server) -> None:
    assert_problem(server.call("GET", "/api/v1/nothing"), 404, "not_found")
    assert_problem(server.call("GET", "/api/v1/adapters/"), 404, "not_found")
    assert_problem(server.call("PUT", ADAPTERS), 405, "method_not_allowed")
    override = {"X-HTTP-Method-Override": "DELETE"}
    assert server.call("GET", ADAPTERS, headers=override).status == 200


@pytest.mark.parametrize("limit", ["0", "-1", "201", "9" * 30, "1e3", "x", ""])
def test_a_page_has_1_to_200_items(server: Server, limit: str) -> None:
    for path in (ADAPTERS, "/api/v1/search", "/api/v1/bases"):
        answer = server.call("GET", f"{path}?limit={limit}")
        assert_problem(answer, 422 if limit in ("1e3", "x", "") else 400, "invalid")


@pytest.mark.parametrize("cursor", ["x", "' OR 1=1--", "AAAA", "%00", "é", "A" * 1024])
def test_a_forged_cursor_is_refused(server: Server, tone: Adapter, cursor: str) -> None:
    push(server.registry(), tone, "acme/tone")
    for path in (
        ADAPTERS,
        "/api/v1/search",
        f"{ADAPTERS}/acme/tone/versions",
        f"{ADAPTERS}/acme/tone/history",
    ):
        answer = server.call("GET", f"{path}?cursor={cursor}")
        assert answer.status in (400, 422), (path, answer)


def test_a_malformed_search_shows_the_grammar(server: Server) -> None:
    answer = server.call("GET", "/api/v1/search?q=colour:red")
    assert_problem(answer, 400, "invalid_query")
    assert "metric.NAME" in answer.json["detail"]


def test_a_newer_client_is_asked_to_upgrade_the_server(server: Server) -> None:
    answer = server.call("GET", "/api/v1", headers={protocol.API_HEADER: str(protocol.API + 1)})
    assert_problem(answer, 426, "incompatible")
    assert "upgrade the server" in answer.json["detail"]


def test_a_client_older_than_the_oldest_supported_one_is_asked_to_upgrade(server: Server) -> None:
    answer = server.call("GET", "/api/v1", headers={protocol.API_HEADER: str(protocol.API_OLDEST - 1)})
    assert_problem(answer, 426, "incompatible")
    assert "upgrade adaptry where the client runs" in answer.json["detail"]


def test_a_client_without_a_version_header_is_served(server: Server) -> None:
    assert server.call("GET", "/api/v1", headers={protocol.API_HEADER: "banana"}).status == 200


def test_an_unavailable_database_is_an_error_without_internal_details(server: Server, tone: Adapter) -> None:
    push(server.registry(), tone, "acme/tone")
    for path in server.data.glob("blobs/sha256/*/*"):
        path.unlink()
    digest = server.call("GET", f"{ADAPTERS}/acme/tone/versions/1").json["digest"]
    answer = server.call("GET", f"{ADAPTERS}/acme/tone/revisions/{digest}/files/adapter_config.json")
    assert answer.status in (404, 500), answer
    assert str(server.data).encode() not in answer.body


def test_a_server_whose_database_a_newer_program_upgraded_says_that_it_must_be_restarted(
    server: Server, tone: Adapter
) -> None:
    push(server.registry(), tone, "acme/tone")
    database = sqlite3.connect(server.catalog.path or "")
    with closing(database), database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.execute("ALTER TABLE workers RENAME TO agents")

    answer = server.call("GET", "/api/v1/workers")

    assert_problem(answer, 500, "internal")
    assert "has schema 9999" in answer.json["detail"]
    assert "restart this server: the database was upgraded while it was running" in answer.json["detail"]
    assert server.call("GET", "/api/v1/adapters/acme/tone").status == 200


def test_health_readiness_and_counts_name_no_tenant(server: Server, tone: Adapter) -> None:
    push(server.registry(), tone, "acme/secret-project")
    assert server.call("GET", "/healthz", token=None).body == b"ok\n"
    assert server.call("GET", "/readyz", token=None).body == b"ready\n"
    text = server.metrics_with('route="/readyz",status="200"', token=None)
    assert 'adaptry_requests_total{method="GET",route="/healthz",status="200"} 1.0\n' in text
    assert 'route="/api/v1/adapters/{namespace}/{name}/revisions/with-files",status="201"' in text
    received = re.search(r"^adaptry_received_bytes_total (\S+)$", text, re.MULTILINE)
    assert received and float(received[1]) > sum(tone.content.sizes.values())
    assert "secret" not in text


def test_the_openapi_description_is_open_to_everyone(server: Server) -> None:
    for address in ("/openapi.json", "/api/v1/openapi.json"):
        assert "/api/v1/search" in server.call("GET", address, token=None).json["paths"]


@pytest.mark.parametrize(
    "request_text",
    [
        (
            b"GET /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding:"
            b" chunked\r\n\r\n0\r\n\r\n"
        ),
        b"GET /api/v1 HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["two lengths", "a huge header", "garbage", "bytes in the address"],
)
def test_a_malformed_request_ends_only_its_connection(server: Server, request_text: bytes) -> None:
    parts = urlsplit(server.url)
    assert parts.hostname and parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        answer = b""
        try:
            connection.sendall(request_text)
            while piece := connection.recv(65536):
                answer += piece
                if b"\r\n\r\n" in answer:
                    break
        except ConnectionError:
            pass
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 3")), answer
    assert server.call("GET", "/healthz", token=None).status == 200


def test_errors_reach_the_client_as_the_class_they_were(registry: HttpRegistry) -> None:
    with pytest.raises(AdaptryError) as caught:
        registry.versions.search("colour:red")
    assert caught.value.code == "invalid_query"


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_outside_the_range_of_utc_is_invalid(server: Server, since: str) -> None:
    resident = {
        "name": "acme/tone",
        "digest": "sha256:" + "0" * 64,
        "served_as": "acme/tone@1",
        "condition": "serving",
        "since": since,
    }
    report = {"worker": "gpu-1", "engine": "vllm", "names": [], "residents": [resident]}

    answer = server.call("POST", "/api/v1/workers", report)

    assert_problem(answer, 422, "invalid")
    assert "outside the years" in answer.json["detail"]


def test_a_worker_of_the_former_version_may_report_and_listen(server: Server) -> None:
    problem = {"served_as": "acme/tone@prod", "reason": "its rank is too large"}
    report = {"worker": "gpu-1", "engine": "vllm", "seen": 7, "troubles": [problem]}

    assert server.call("POST", "/api/v1/workers", report).status == 200
    events = server.call("GET", "/api/v1/events?after=0&about=other/*")

    worker = server.registry().workers.get("gpu-1")
    assert (worker.last_event, [one.model_dump() for one in worker.problems]) == (7, [problem])
    assert (events.status, events.json["items"]) == (200, [])
    refused = server.call("GET", "/api/v1/events?abuot=other/*").json["detail"]
    assert "(it takes adapter, after, limit, wait)" in refused


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/jobs/job-0/log?after=3", "'after' (it takes cursor, limit)"),
        ("/api/v1/search?q=&limt=2", "'limt'"),
        ("/api/v1/adapters/acme/tone/versions/1?verbose=1", "'verbose' (it takes none)"),
    ],
)
def test_an_unknown_query_parameter_is_refused(server: Server, path: str, said: str) -> None:
    answer = server.call("GET", path)
    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert said in answer.json["detail"]
