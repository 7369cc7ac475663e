"""Device flow: a program shows a code, somebody approves it in a browser, and the program gets a token."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from adaptry.core.identity import Identity
from adaptry.storage import device_sign_ins
from adaptry_api.testing import RawResponse, Server

from .browser import Browser

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    """Signed in as ann, with an unlimited token."""
    with closing(Browser()) as opened:
        server.token_of(Identity("ann"))
        token = server.call("POST", "/api/v1/tokens", {"principal": "ann", "name": "web"}).json["secret"]
        signed_in = opened.post(f"{server.url}/-/sign-in", {"token": token}, origin=server.url)
        assert signed_in.status == 303, signed_in.text
        yield opened


def begin(server: Server) -> dict[str, Any]:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.call("POST", "/oauth/device", b"client_id=hf", token=None, headers=kind)
    assert answer.status == 200, answer.body
    begun: dict[str, Any] = answer.json
    return begun


def poll(server: Server, device_code: str) -> RawResponse:
    body = urlencode({"grant_type": GRANT, "device_code": device_code, "client_id": "hf"}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.call("POST", "/oauth/token", body, token=None, headers=kind)


def decide(browser: Browser, server: Server, code: str, decision: str = "approve", origin: str = "") -> int:
    form = {"user_code": code, "decision": decision}
    return browser.post(f"{server.url}/-/device", form, origin=origin or server.url).status


def test_a_program_gets_one_token_after_its_user_approved_it(server: Server, browser: Browser) -> None:
    begun = begin(server)
    assert browser.get(begun["verification_uri_complete"]).status == 200
    assert poll(server, begun["device_code"]).json["error"] == "authorization_pending"
    assert poll(server, begun["device_code"]).json["error"] == "slow_down"
    assert decide(browser, server, begun["user_code"].lower().replace("-", " ")) == 200
    answer = poll(server, begun["device_code"])
    assert answer.status == 200 and answer.json["expires_in"] > 86_400
    token = answer.json["access_token"]
    assert server.call("GET", "/api/v1/whoami", token=token).json["identity"] == "ann"
    assert poll(server, begun["device_code"]).json["error"] == "expired_token"


def test_a_denied_program_gets_none(server: Server, browser: Browser) -> None:
    begun = begin(server)
    assert decide(browser, server, begun["user_code"], "deny") == 200
    assert poll(server, begun["device_code"]).json["error"] == "access_denied"
    assert decide(browser, server, begun["user_code"]) == 404


def test_only_a_signed_in_user_approves_from_a_page_of_this_server(server: Server, browser: Browser) -> None:
    begun = begin(server)
    with closing(Browser()) as stranger:
        assert decide(stranger, server, begun["user_code"]) != 200
    assert decide(browser, server, begun["user_code"], origin="https://evil.example") == 403
    assert decide(browser, server, "WRNG-WRNG") == 404
    assert poll(server, begun["device_code"]).json["error"] == "authorization_pending"
    assert poll(server, begun["user_code"]).json["error"] == "expired_token", (
        "the short code is no device code"
    )


def test_an_approval_ends_with_the_token_that_gave_it(server: Server, browser: Browser) -> None:
    begun = begin(server)
    assert decide(browser, server, begun["user_code"]) == 200
    for token in server.registry().tokens.list():
        if token.principal == "ann" and token.revoked_at is None:
            server.registry().tokens.revoke(token.id)
    assert poll(server, begun["device_code"]).json["error"] == "expired_token"


def test_a_limited_token_approves_no_program(server: Server) -> None:
    begun, limited = begin(server), server.token("ci", "writer", ("acme",))
    with closing(Browser()) as opened:
        opened.post(f"{server.url}/-/sign-in", {"token": limited}, origin=server.url)
        assert decide(opened, server, begun["user_code"]) == 403


def test_a_code_expires_after_a_quarter_of_an_hour(server: Server) -> None:
    past = datetime.now(UTC) - timedelta(minutes=16)
    codes = device_sign_ins.begin(server.catalog, past)
    assert device_sign_ins.poll(server.catalog, codes.device_code) == "expired_token"


@pytest.mark.slow
def test_unmodified_hf_auth_login_signs_in(server: Server, browser: Browser, tmp_path: Path) -> None:
    process, code = _start("hf", "auth", "login", server=server, home=tmp_path)
    assert decide(browser, server, code) == 200
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    who = _run("hf", "auth", "whoami", server=server, home=tmp_path)
    assert "ann" in who


@pytest.mark.slow
def test_adaptry_login_signs_in_with_a_browser(server: Server, browser: Browser, tmp_path: Path) -> None:
    process, code = _start("adaptry", "login", server.url, "--browser", server=server, home=tmp_path)
    assert decide(browser, server, code) == 200
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0 and "ann" in output, output


def _environment(server: Server, home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ADAPTRY_"))}
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(home / "hf"), "ADAPTRY_HOME": str(home / "adaptry")}
    return kept | own | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


def _start(program: str, *arguments: str, server: Server, home: Path) -> tuple[subprocess.Popen[str], str]:
    """A program that waits, and the code that it shows."""
    process = subprocess.Popen(
        [PROGRAMS / program, *arguments],
        env=_environment(server, home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if found := re.search(r"\b[B-Z]{4}-[B-Z]{4}\b", line):
            return process, found[0]
    raise AssertionError(shown)


def _run(program: str, *arguments: str, server: Server, home: Path) -> str:
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        env=_environment(server, home),
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
