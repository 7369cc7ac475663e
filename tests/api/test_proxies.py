"""The host and scheme in generated addresses: forwarding headers are trusted only from configured proxies."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid
from adaptry.testing.warm_python import run_warm
from adaptry_api.proxies import networks_of
from adaptry_api.testing import Server

from .hub.pushed import TONE, create, put

EVIL = "evil.example"
SPOOFED = {
    "X-Forwarded-Host": EVIL,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Port": "4443",
    "X-Forwarded-Server": EVIL,
    "X-Forwarded-Prefix": f"/{EVIL}",
    "X-Original-Host": EVIL,
    "Forwarded": f"for=203.0.113.9;host={EVIL};proto=https",
}
HERE = "127.0.0.1"
Start = Callable[..., Server]


def handed_out(server: Server, headers: dict[str, str]) -> dict[str, str]:
    """Every kind of response that contains an address, with headers and body, by the name of the request."""
    create(server)
    put(server, {"README.md": b"# Tone\n", "LICENSE": b"Free\n"})
    server.call("POST", "/api/repos/create", {"name": "acme/other"})
    lfs = {"Content-Type": "application/vnd.git-lfs+json"}
    whole = {
        "operation": "upload",
        "transfers": ["basic"],
        "objects": [{"oid": hashlib.sha256(b"x").hexdigest(), "size": 1}],
        "hash_algo": "sha256",
    }
    parts = whole | {"transfers": ["multipart"], "objects": [{"oid": "a" * 64, "size": 300 << 20}]}
    batch = f"/{TONE}.git/info/lfs/objects/batch"
    lines = [
        {"key": "header", "value": {"summary": "more", "description": ""}},
        {"key": "file", "value": {"path": "NOTICE", "content": "Yw==", "encoding": "base64"}},
    ]
    asked: dict[str, tuple[str, str, object, dict[str, str]]] = {
        "create": ("POST", "/api/repos/create", {"name": "acme/new"}, {}),
        "create again": ("POST", "/api/repos/create", {"name": TONE}, {}),
        "lfs": ("POST", batch, whole, lfs),
        "lfs in parts": ("POST", batch, parts, lfs),
        "xet": ("GET", f"/api/models/{TONE}/xet-write-token/main", None, {}),
        "next page": ("GET", "/api/models?limit=1", None, {}),
        "next page of a tree": ("GET", f"/api/models/{TONE}/tree/main?limit=1", None, {}),
        "commit": (
            "POST",
            f"/api/models/{TONE}/commit/main",
            "\n".join(json.dumps(line) for line in lines).encode(),
            {"Content-Type": "application/x-ndjson"},
        ),
        "file": ("GET", f"/{TONE}/resolve/main/README.md", None, {}),
        "info": ("GET", f"/api/models/{TONE}", None, {}),
        "description": ("GET", "/api/v1/openapi.json", None, {}),
        "missing": ("GET", "/acme/nothing/resolve/main/README.md", None, {}),
    }
    found = {}
    for name, (method, path, body, more) in asked.items():
        answer = server.call(method, path, body, headers={**more, **headers})
        found[name] = f"{answer.status} {dict(answer.headers)} {answer.body.decode()}"
    return found


def test_without_a_configured_proxy_no_forwarding_header_reaches_an_address(server: Server) -> None:
    found = handed_out(server, SPOOFED)
    assert {name for name, text in found.items() if EVIL in text or "4443" in text} == set()
    with_addresses = {"create", "create again", "lfs", "lfs in parts", "xet", "next page", "commit"}
    assert {name for name in with_addresses if f"{server.url}/" not in found[name]} == set(), found


def test_forwarding_headers_from_other_peers_are_ignored(start: Start) -> None:
    server = start(proxies=("192.0.2.7", "2001:db8::/32", "10.0.0.0/8"))
    assert {name for name, text in handed_out(server, SPOOFED).items() if EVIL in text} == set()


@pytest.mark.parametrize("proxy", [HERE, "127.0.0.0/8", " 127.0.0.1 "])
def test_a_configured_proxy_determines_host_and_scheme(start: Start, proxy: str) -> None:
    server = start(proxies=("192.0.2.7", proxy))
    headers = {"X-Forwarded-Host": "hub.example.org", "X-Forwarded-Proto": "https"}
    found = handed_out(server, headers)
    with_addresses = {"create", "create again", "lfs", "lfs in parts", "xet", "next page", "commit"}
    assert {name for name in with_addresses if "https://hub.example.org/" not in found[name]} == set(), found
    assert {name for name, text in found.items() if server.url in text} == set()


def test_only_the_address_appended_by_a_trusted_proxy_counts(start: Start) -> None:
    server = start(proxies=(HERE,))
    headers = {"X-Forwarded-Host": f"{EVIL}, hub.example.org", "X-Forwarded-Proto": "http, https"}
    made = server.call("POST", "/api/repos/create", {"name": TONE}, headers=headers)
    assert made.json["url"] == f"https://hub.example.org/{TONE}"


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-Host": host} for host in ("evil.example/x", "a@b", "a b")]
    + [{"X-Forwarded-Proto": "gopher"}],
    ids=str,
)
def test_an_invalid_forwarded_host_is_refused(start: Start, headers: dict[str, str]) -> None:
    server = start(proxies=(HERE,))
    assert server.call("POST", "/api/repos/create", {"name": TONE}, headers=headers).status == 400


def test_allowed_host_names_are_compared_with_the_forwarded_host(start: Start) -> None:
    server = start(proxies=(HERE,), hosts=("hub.example.org",))
    assert server.call("GET", "/healthz", headers={"X-Forwarded-Host": "hub.example.org"}).status == 200
    assert server.call("GET", "/healthz", headers={"X-Forwarded-Host": EVIL}).status == 400
    assert server.call("GET", "/healthz").status == 400


def test_a_forwarding_header_does_not_bypass_allowed_host_names(start: Start) -> None:
    server = start(hosts=("hub.example.org",))
    assert server.call("GET", "/healthz", headers={"X-Forwarded-Host": "hub.example.org"}).status == 400


@pytest.mark.parametrize("wrong", ["balancer", "10.0.0.5/8", "10.0.0.0/40", ""])
def test_a_proxy_is_an_address_or_a_block_of_addresses(wrong: str) -> None:
    with pytest.raises(Invalid, match="not a proxy's address"):
        networks_of(("10.0.0.5", wrong))


def test_a_malformed_proxy_address_stops_the_command_before_any_change(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adaptry_cli", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    done = run_warm([*command, "--trust-proxy", "balancer"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a proxy's address: 'balancer'" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
