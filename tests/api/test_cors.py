"""Cross-origin requests: none is allowed by default; configured origins are allowed, without cookies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid
from adaptry_api.app import create_app
from adaptry_api.origins import check_origin
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import RawResponse, Server

APP, OTHER = "https://app.example.com", "http://localhost:5173"
STRANGERS = (
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://APP.example.com",
    "null",
    "",
)
ADDRESSES = (
    ("GET", "/api/v1", 200),
    ("GET", "/healthz", 200),
    ("GET", "/nothing", 404),
    ("GET", "/api/models/acme/none", 404),
    ("GET", "/acme/none/resolve/main/README.md", 404),
    ("DELETE", "/api/v1", 405),
    ("POST", "/api/v1/adapters", 415),
    ("PUT", "/api/lfs/objects?grant=x", 401),
)


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start(origins=(APP, OTHER))


def cors(answer: RawResponse) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower().startswith("access-control-")
    }


def preflight(server: Server, path: str, origin: str, method: str = "PUT") -> RawResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-xet-session-id",
    }
    return server.call("OPTIONS", path, token=None, headers=headers)


def test_a_server_without_origins_sends_no_cors_headers(start: Callable[..., Server]) -> None:
    server = start()
    for method, path, _ in ADDRESSES:
        answer = server.call(method, path, headers={"Origin": APP})
        assert cors(answer) == {}
        assert "Origin" not in answer.headers["Vary"]
        assert cors(preflight(server, path, APP)) == {}


def test_a_page_of_a_named_origin_may_read_every_answer_errors_too(server: Server) -> None:
    for method, path, status in ADDRESSES:
        for origin in (APP, OTHER):
            answer = server.call(method, path, b"{" if method == "POST" else None, headers={"Origin": origin})
            found = cors(answer)
            assert (answer.status, found["access-control-allow-origin"]) == (status, origin), (method, path)
            exposed = found["access-control-expose-headers"].split(", ")
            assert {"X-Error-Code", "X-Error-Message", "ETag", "X-Repo-Commit", "X-Linked-Size", "Link"} <= {
                *exposed
            }
            assert {"Content-Range", "Accept-Ranges", "Location", "X-Linked-Etag", "Request-Id"} <= {*exposed}
            assert {"Authorization", "Origin"} <= set(answer.headers["Vary"].replace(" ", "").split(","))


def test_a_preflight_is_answered_for_every_address_without_a_token(server: Server) -> None:
    for method, path, _ in ADDRESSES:
        answer = preflight(server, path, APP, method)
        found = cors(answer)
        assert (answer.status, answer.body) == (204, b"")
        assert found["access-control-allow-origin"] == APP
        assert method in found["access-control-allow-methods"]
        assert found["access-control-allow-headers"] == "authorization,content-type,x-xet-session-id"


def test_other_origins_are_refused_and_responses_vary_by_origin(server: Server) -> None:
    for origin in STRANGERS:
        for method, path, status in ADDRESSES[:4]:
            answer = server.call(method, path, headers={"Origin": origin})
            assert (answer.status, cors(answer)) == (status, {}), origin
            assert "Origin" in answer.headers["Vary"]
            asked = preflight(server, path, origin)
            assert (asked.status in (404, 405), cors(asked)) == (True, {}), origin


def test_credentials_are_never_allowed_and_no_wildcard_is_sent(server: Server) -> None:
    answers = [server.call("GET", "/api/v1", headers={"Origin": APP}), preflight(server, "/api/v1", APP)]
    for answer in answers:
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "*" not in "".join(cors(answer).values())


def test_an_options_request_other_than_a_preflight_is_answered_as_without_cors(server: Server) -> None:
    answer = server.call("OPTIONS", "/api/v1", headers={"Origin": APP})
    assert answer.status == 405
    assert cors(answer)["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    "text",
    [APP, OTHER, "http://127.0.0.1:1", "https://[::1]:8443", "https://xn--bcher-kva.example", "http://a"],
)
def test_an_origin_is_what_a_browser_sends(text: str) -> None:
    assert check_origin(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/page",
        "https://*.example.com",
        "HTTPS://app.example.com",
        "https://App.example.com",
        "https://user@app.example.com",
        "https://app.example.com:",
        "https://app.example.com:0",
        "https://app.example.com:08443",
        "https://app.example.com:70000",
        "https://bücher.example",
        "file:///tmp",
        "https://",
        "https://a b",
        "https://a\n",
        "https://a.example, https://b.example",
    ],
)
def test_a_malformed_origin_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(Invalid, match=r"such as https://app\.example\.com"):
        check_origin(text)


def test_a_default_port_is_refused_with_the_origin_that_browsers_send() -> None:
    with pytest.raises(Invalid, match=r"write https://app\.example\.com"):
        check_origin("https://app.example.com:443")
    with pytest.raises(Invalid, match="write http://localhost"):
        check_origin("http://localhost:80")


def test_a_server_does_not_start_with_an_invalid_origin(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not an origin"):
        create_app(ServerSettings(data=tmp_path / "data", origins=(APP, "*")))
    assert not (tmp_path / "data").exists()
