"""Malicious names and paths, in every address and body that takes one, are refused; nothing is written, and
no response is a 5xx.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.strictjson import canonical
from adaptry.operations.transfer import push
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, assert_problem, running_server

NAMES_OF_ADAPTERS = ("con", "NUL.json")  # an adapter may have a name that Windows would not accept for a file
ATTACKS = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "C:\\x",
    "\\\\host\\share",
    "a\\..\\b",
    "%2e%2e%2fx",
    "%252e%252e%252fx",
    "．．／x",
    "a\x00.safetensors",
    "a\nb",
    "a\rb",
    "a\x1b[31m",
    "a\x7f",
    "a\u202etxt.exe",
    "con",
    "NUL.json",
    "adapter_config.json.",
    "adapter_config.json ",
    "n" * 4096,
    "n" * 300,
    ".",
    "..",
    "a;params",
    "a#frag",
    "a?q",
    "café.json",
    "cafe\u0301.json",
    ".git/config",
    ".hidden",
    "a//b",
]


def short(text: str) -> str:
    return ascii(text[:40])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, since none of the requests may change anything."""
    folder = tmp_path_factory.mktemp("names")
    with running_server(ServerSettings(data=folder / "data")) as running:
        push(running.registry(), open_dir(tiny_lora(folder / "tone")), "acme/tone")
        yield running


@pytest.fixture(autouse=True)
def unchanged(server: Server) -> Iterator[None]:
    yield
    assert [item["name"] for item in server.call("GET", "/api/v1/adapters").json["items"]] == ["acme/tone"]
    assert len(server.call("GET", "/api/v1/search").json["items"]) == 1


@pytest.fixture
def digest(server: Server) -> Digest:
    return Digest.parse(server.call("GET", "/api/v1/adapters/acme/tone/versions/1").json["digest"])


def entry(path: str, data: bytes = b"{}") -> dict[str, object]:
    return {"path": path, "size": len(data), "sha256": str(Digest.of(data))}


@pytest.mark.parametrize("path", [*ATTACKS, ""], ids=short)
def test_a_manifest_cannot_name_such_a_file(server: Server, path: str) -> None:
    manifest = canonical({"files": [entry(path)], "schema": 1})
    answer = server.call(
        "POST",
        "/api/v1/adapters/acme/tone/revisions",
        {"manifest": base64.b64encode(manifest).decode()},
    )
    assert answer.status in (400, 415, 422), answer
    assert answer.json["code"] in ("invalid_path", "invalid_manifest", "unsupported")


@pytest.mark.parametrize("path", ATTACKS, ids=short)
def test_no_file_at_a_dangerous_path_is_ever_read(server: Server, digest: Digest, path: str) -> None:
    url = f"/api/v1/adapters/acme/tone/revisions/{digest}/files/"
    for spelled in (quote(path, safe=""), quote(quote(path, safe=""), safe="")):
        answer = server.call("GET", url + spelled)
        assert answer.status in (400, 404), answer
        assert b"root:" not in answer.body


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in NAMES_OF_ADAPTERS], ids=short)
@pytest.mark.parametrize("form", ["{}/tone", "acme/{}"])
def test_no_adapter_can_have_a_dangerous_name(server: Server, name: str, form: str) -> None:
    made = server.call("POST", "/api/v1/adapters", {"name": form.format(name)})
    assert_problem(made, 422, "invalid")
    asked = server.call("GET", "/api/v1/adapters/" + form.format(quote(name, safe="")))
    assert asked.status in (400, 404)


def test_overlong_utf8_in_an_address_does_not_bypass_the_check(server: Server) -> None:
    for path in ("%c0%ae%c0%ae/x", "acme/%ff%fe", "acme/%00"):
        assert server.call("GET", f"/api/v1/adapters/{path}").status in (400, 404)


def test_an_encoded_slash_means_the_same_adapter_with_the_same_rights(server: Server) -> None:
    stranger = server.token("eve", "writer", ("evil",))
    assert server.call("GET", "/api/v1/adapters/acme%2Ftone").json["name"] == "acme/tone"
    assert server.call("GET", "/api/v1/adapters/acme%2Ftone", token=stranger).status == 404


def test_two_files_of_one_revision_may_not_differ_by_case_alone(server: Server) -> None:
    files = [entry("README.md"), entry("readme.md")]
    manifest = canonical({"files": files, "schema": 1})
    answer = server.call(
        "POST",
        "/api/v1/adapters/acme/tone/revisions",
        {"manifest": base64.b64encode(manifest).decode()},
    )
    assert_problem(answer, 422, "invalid_manifest")


def test_a_hostile_host_header_changes_nothing(server: Server) -> None:
    for host in ("evil.example", "a/b?c#d", "localhost:99999", "[::1"):
        answer = server.call("GET", "/api/v1/whoami", token=None, headers={"Host": host})
        assert answer.status in (400, 401), host


def test_a_request_for_a_host_that_is_not_allowed_is_refused(start: Callable[..., Server]) -> None:
    server = start(hosts=("127.0.0.1", "adapters.example"))
    assert server.call("GET", "/api/v1/whoami").status == 200
    assert server.call("GET", "/api/v1/whoami", headers={"Host": "adapters.example:443"}).status == 200
    assert_problem(server.call("GET", "/api/v1/whoami", headers={"Host": "evil.example"}), 400, "invalid")


def test_a_digest_is_written_one_way(server: Server, digest: Digest) -> None:
    at = "/api/v1/adapters/acme/tone"
    for wrong in (
        digest.hex,
        f"sha512:{digest.hex}",
        f"sha256:{digest.hex.upper()}",
        f"sha256:{digest.hex[:20]}",
    ):
        assert_problem(server.call("GET", f"{at}/blobs/{wrong}"), 400, "invalid")
        opened = server.call("POST", f"{at}/uploads", {"digest": wrong, "size": 1})
        assert_problem(opened, 422, "invalid")
