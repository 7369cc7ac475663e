"""Device flow: a program shows a code, a user approves it in a browser, and the program gets a token that it
can refresh.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from adaptry.core.identity import Identity
from adaptry.registry.audit_log import AuditFilter
from adaptry.storage import device_sign_ins
from adaptry_api import address_limits, app_state
from adaptry_api.address_limits import AddressLimit
from adaptry_api.testing import RawResponse, Server

from .browser import Browser

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    """A browser in which ann is signed in, with an unlimited token."""
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


def refresh(server: Server, refresh_token: str, client_id: str = "hf") -> RawResponse:
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client_id}
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.call("POST", "/oauth/token", urlencode(form).encode(), token=None, headers=kind)


def decide(browser: Browser, server: Server, code: str, decision: str = "approve", origin: str = "") -> int:
    form = {"user_code": code, "decision": decision}
    return browser.post(f"{server.url}/-/device", form, origin=origin or server.url).status


def test_a_program_gets_one_token_after_its_user_approved_it(
    server: Server, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin(server)
    monkeypatch.setattr(device_sign_ins, "INTERVAL", 3600)  # the next poll is always too early
    assert browser.get(begun["verification_uri_complete"]).status == 200
    assert poll(server, begun["device_code"]).json["error"] == "authorization_pending"
    assert poll(server, begun["device_code"]).json["error"] == "slow_down"
    assert decide(browser, server, begun["user_code"].lower().replace("-", " ")) == 200
    answer = poll(server, begun["device_code"])
    assert answer.status == 200 and answer.json["expires_in"] > 86_400
    token = answer.json["access_token"]
    assert server.call("GET", "/api/v1/whoami", token=token).json["identity"] == "ann"
    assert poll(server, begun["device_code"]).json["error"] == "expired_token"


def test_a_denied_program_gets_no_token(server: Server, browser: Browser) -> None:
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


def test_a_program_of_a_disabled_user_gets_no_token(server: Server, browser: Browser) -> None:
    begun = begin(server)
    assert decide(browser, server, begun["user_code"]) == 200
    server.registry().principals.set_disabled("ann", True)
    assert poll(server, begun["device_code"]).json["error"] == "access_denied"


def test_an_approval_ends_with_the_approving_token(server: Server, browser: Browser) -> None:
    begun = begin(server)
    assert decide(browser, server, begun["user_code"]) == 200
    for token in server.registry().tokens.list().items:
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
    codes = device_sign_ins.begin(server.catalog, "hf", past)
    assert device_sign_ins.poll(server.catalog, codes.device_code) == "expired_token"


def test_a_program_refreshes_its_token(server: Server, browser: Browser) -> None:
    begun = begin(server)
    decide(browser, server, begun["user_code"])
    first = poll(server, begun["device_code"]).json
    answer = refresh(server, first["refresh_token"])
    assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
    second = answer.json
    assert second["token_type"] == "bearer" and second["expires_in"] > 86_400
    assert second["refresh_token"] != first["refresh_token"]
    assert server.call("GET", "/api/v1/whoami", token=second["access_token"]).json["identity"] == "ann"


def test_a_refresh_token_of_another_program_is_refused(server: Server, browser: Browser) -> None:
    begun = begin(server)
    decide(browser, server, begun["user_code"])
    first = poll(server, begun["device_code"]).json
    for token, client in ((first["refresh_token"], "other"), (first["access_token"], "hf"), ("x", "hf")):
        answer = refresh(server, token, client)
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert refresh(server, "").json["error"] == "invalid_request"
    assert refresh(server, first["refresh_token"], "").json["error"] == "invalid_request"
    assert server.call("GET", "/api/v1/whoami", token=first["refresh_token"]).status == 401
    assert refresh(server, first["refresh_token"]).status == 200, "it was not used up"


def test_a_refresh_token_that_was_copied_ends_the_sign_in_at_once(server: Server, browser: Browser) -> None:
    begun = begin(server)
    decide(browser, server, begun["user_code"])
    first = poll(server, begun["device_code"]).json
    second = refresh(server, first["refresh_token"]).json
    third = refresh(server, second["refresh_token"]).json
    for token in (first, second, third):
        server.call("GET", "/api/v1/whoami", token=token["access_token"])
    again = refresh(server, first["refresh_token"])
    assert again.json["error"] == "invalid_grant" and "used before" in again.json["error_description"]
    for token in (first, second, third):
        assert server.call("GET", "/api/v1/whoami", token=token["access_token"]).status == 401
    (entry,) = server.registry().audit.list(AuditFilter(action="session.end"), None, 5).items
    assert entry.resource == "ann" and "copied" in str(entry.after)


def test_the_name_of_a_program_is_short_and_printable(server: Server) -> None:
    for name in ("x" * 201, "a\x00b", "a\nb"):
        answer = server.call("POST", "/oauth/device", {"client_id": name}, token=None)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")


@pytest.mark.slow
def test_unmodified_hf_auth_login_signs_in_and_refreshes(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    process, code = _start("hf", "auth", "login", server=server, home=tmp_path)
    assert decide(browser, server, code) == 200
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    stored = tmp_path / "hf" / "stored_tokens"
    before = _sections(stored)
    assert float(before["expires_at"]) > time.time() + 86_400, "no refresh is due yet"
    assert "ann" in _run("hf", "auth", "whoami", server=server, home=tmp_path)
    assert _sections(stored) == before
    soon = str(int(time.time()) + 3600)
    stored.write_text(stored.read_text().replace(before["expires_at"], soon))
    assert "ann" in _run("hf", "auth", "whoami", server=server, home=tmp_path)
    after = _sections(stored)
    assert all(after[name] != before[name] for name in ("hf_token", "refresh_token"))
    assert float(after["expires_at"]) > float(soon) + 86_400
    assert (tmp_path / "hf" / "token").read_text() == after["hf_token"]
    for token in (before, after):
        assert server.call("GET", "/api/v1/whoami", token=token["hf_token"]).json["identity"] == "ann"


def _sections(stored: Path) -> dict[str, str]:
    """The data that `hf` stored about its only sign-in."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(stored)
    (section,) = parser.sections()
    return dict(parser[section])


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--browser",)], ids=["in a terminal", "without a terminal"])
def test_adaptry_login_shows_an_address_and_a_code(
    server: Server, browser: Browser, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with terminal() as screen:
        keyboard = subprocess.DEVNULL if options else screen
        process, code = _start(
            "adaptry", "login", server.url, *options, server=server, home=tmp_path, stdin=keyboard
        )
        assert decide(browser, server, code) == 200
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 0 and "ann" in output, output
    saved = (tmp_path / "adaptry" / "credentials.json").read_text()
    assert server.url in saved and "adr_pat_" in saved


@contextmanager
def terminal() -> Iterator[int]:
    """A terminal that a program reads from, without any input."""
    typing, reading = os.openpty()
    try:
        yield reading
    finally:
        os.close(typing)
        os.close(reading)


def _environment(server: Server, home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ADAPTRY_"))}
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(home / "hf"), "ADAPTRY_HOME": str(home / "adaptry")}
    return kept | own | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


def _start(
    program: str, *arguments: str, server: Server, home: Path, stdin: int = subprocess.DEVNULL
) -> tuple[subprocess.Popen[str], str]:
    """Starts a program; returns it waiting, with the code that it shows."""
    process = subprocess.Popen(
        [PROGRAMS / program, *arguments],
        env=_environment(server, home),
        stdin=stdin,
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


def test_one_address_cannot_use_up_the_sign_ins_of_all_others(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_state, "DEVICE_SIGN_INS", 2)
    server = start(proxies=("127.0.0.1",))

    def begun(caller: str) -> int:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Forwarded-For": f"8.8.8.8, {caller}",
        }
        answer = server.call("POST", "/oauth/device", b"client_id=hf", token=None, headers=headers)
        assert answer.status == 200 or answer.json["error"] == "temporarily_unavailable"
        return answer.status

    assert [begun("198.51.100.7") for _ in range(3)] == [200, 200, 503]
    assert [begun(f"2001:db8::{last}") for last in range(3)] == [200, 200, 503]
    assert begun("198.51.100.8") == begun("2001:db8:0:1::1") == 200


def test_sign_ins_of_an_address_come_back_evenly_and_old_addresses_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(address_limits, "_MAX_ENTRIES", 2)
    limit = AddressLimit(3, lambda: now)
    assert [limit.seconds_to_wait("1.1.1.1") for _ in range(4)] == [0, 0, 0, pytest.approx(20)]
    now += 20
    assert [limit.seconds_to_wait("1.1.1.1") for _ in range(2)] == [0, pytest.approx(20)]
    for address in ("1.1.1.2", "::ffff:1.1.1.3", None):
        assert limit.seconds_to_wait(address) == 0
    assert limit.seconds_to_wait("1.1.1.1") == 0
