"""Sessions: started with a token or a link, limited to the pages of this site, and ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pages.browser import Browser
from tests.pages.sample_registry import TONE

from adaptry.core.errors import Unauthenticated
from adaptry.storage import tokens
from adaptry_api.pages.security import CONTENT_SECURITY_POLICY
from adaptry_api.sign_in_link import create_sign_in_code, redeem_sign_in_code
from adaptry_api.testing import Server


def test_a_page_without_a_session_leads_to_the_sign_in_page_and_back(team: Server) -> None:
    answer = Browser(team, None).get("/acme/support-tone?version=2")
    assert answer.status == 303
    assert answer.headers["Location"] == "/-/sign-in?next=%2Facme%2Fsupport-tone%3Fversion%3D2"
    form = Browser(team, None).get(answer.headers["Location"])
    assert 'value="/acme/support-tone?version=2"' in form.body.decode()


def test_a_token_begins_a_session_whose_cookie_no_script_and_no_other_site_gets(team: Server) -> None:
    browser = Browser(team, None)
    answer = browser.post("/-/sign-in", {"token": team.admin, "next": "/acme/support-tone"})
    assert (answer.status, answer.headers["Location"]) == (303, "/acme/support-tone")
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert team.admin not in cookie
    assert browser.get("/").status == 200


@pytest.mark.parametrize("secret", ["", "nonsense", "adr_pat_" + "0" * 38])
def test_a_wrong_token_is_refused_on_the_form_itself(team: Server, secret: str) -> None:
    answer = Browser(team, None).post("/-/sign-in", {"token": secret, "next": "/"})
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers
    assert 'role="alert"' in answer.body.decode()


def test_a_revoked_token_ends_its_sessions(team: Server) -> None:
    secret = team.token("tess", "viewer", ("acme",))
    browser = Browser(team, secret)
    assert browser.get("/").status == 200
    tokens.revoke_own_token(team.catalog, secret)
    assert browser.get("/").status == 303


def test_signing_out_ends_the_session(team: Server) -> None:
    browser = Browser(team)
    assert browser.post("/-/sign-out", {}).status == 303
    assert browser.get("/").status == 303


def test_a_session_is_not_a_credential_for_the_rest_interface_or_the_hub_protocol(team: Server) -> None:
    browser = Browser(team)
    for address in ("/api/v1", "/api/v1/adapters/acme/support-tone", "/api/models/acme/support-tone"):
        assert browser.get(address).status == 401, address


def test_a_changed_cookie_is_not_a_session(team: Server) -> None:
    browser = Browser(team)
    assert browser.cookie
    browser.cookie = browser.cookie[:-2] + ("AA" if not browser.cookie.endswith("AA") else "BB")
    assert browser.get("/").status == 303


@pytest.mark.parametrize(
    "next",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "evil",
    ],
)
def test_signing_in_leads_to_no_other_site(team: Server, next: str) -> None:
    answer = Browser(team, None).post("/-/sign-in", {"token": team.admin, "next": next})
    assert (answer.status, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": ""},
        {"Origin": "null", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "", "Sec_Fetch_Site": "same-site"},
        {"Origin": "", "Sec_Fetch_Site": "none"},
        {"Origin": "", "Sec_Fetch_Site": ""},
    ],
)
@pytest.mark.parametrize("address", ["/-/sign-in", "/-/sign-in/link", "/-/sign-out"])
def test_forms_of_other_sites_are_refused(team: Server, address: str, headers: dict[str, str]) -> None:
    answer = Browser(team, None).post(address, {"token": team.admin, "next": "/"}, **headers)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


def test_an_oversized_or_malformed_form_is_refused(team: Server) -> None:
    browser = Browser(team, None)
    assert browser.post("/-/sign-in", {"token": "x" * 5000}).status == 413
    assert browser.post("/-/sign-in", {"token": "x"}, Content_Type="application/json").status == 415
    assert browser.post("/-/sign-in", {f"f{n}": "x" for n in range(20)}).status == 400


def test_a_sign_in_link_works_once_and_its_page_sends_no_referrer(team: Server) -> None:
    code = create_sign_in_code(team.data, tokens.hash_token(team.admin))
    browser = Browser(team, None)
    page = browser.get("/-/sign-in/link")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert browser.post("/-/sign-in/link", {"code": code}).status == 200
    assert browser.get("/").status == 200
    assert (
        Browser(team, None).post("/-/sign-in/link", {"code": code}, Accept="application/json").status == 401
    )


def test_a_sign_in_code_expires_after_a_minute_and_a_new_one_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create_sign_in_code(tmp_path, "a" * 64)
    second = create_sign_in_code(tmp_path, "b" * 64)
    with pytest.raises(Unauthenticated):
        redeem_sign_in_code(tmp_path, first)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Unauthenticated, match="once, for a minute"):
        redeem_sign_in_code(tmp_path, second)


def test_pages_answer_to_addresses_and_local_names_only_unless_a_host_is_named(
    start: Callable[..., Server],
) -> None:
    server = start()
    browser = Browser(server, None)
    for host, status in (("127.0.0.1", 200), ("localhost:8750", 200), ("[::1]:8750", 200), ("registry", 200)):
        assert browser.get("/-/sign-in", Host=host).status == status, host
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert browser.get("/-/sign-in", Host=host).status == 400, host


def test_pages_answer_to_the_hosts_that_the_operator_names(start: Callable[..., Server]) -> None:
    server = start(hosts=("adapters.example.org",))
    browser = Browser(server, None)
    assert browser.get("/-/sign-in", Host="adapters.example.org").status == 200
    assert browser.get("/-/sign-in", Host="127.0.0.1").status == 400


def test_a_form_that_is_sent_after_signing_out_is_kept_to_be_sent_again(team: Server) -> None:
    answer = Browser(team, None).post(
        "/-/settings/tokens?next=1", {"do": "create", "name": '"><script>late</script>'}
    )
    text = answer.body.decode()
    assert answer.status == 401
    assert "Nothing was changed, and your input is kept on this page" in text
    assert 'action="/-/settings/tokens?next=1"' in text
    assert '<input type="hidden" name="do" value="create">' in text
    assert 'value="&#34;&gt;&lt;script&gt;late&lt;/script&gt;"' in text
    foreign = Browser(team, None).post("/-/settings/tokens", {"name": "x"}, Origin="https://evil.example")
    assert foreign.status == 403
    assert 'type="hidden"' not in foreign.body.decode()


def test_a_part_of_a_page_is_a_link_to_sign_in_once_the_session_has_ended(team: Server) -> None:
    around = {"HX-Request": "true", "HX-Current-URL": f"{team.url}/{TONE}?version=4"}
    part = Browser(team, None).get(f"/-/adapters/{TONE}/4/lineage", **around)
    assert part.status == 401
    assert f'href="/-/sign-in?next=/{TONE}%3Fversion%3D4"' in part.body.decode()
    assert "<html" not in part.body.decode()

    stream = Browser(team, None).get("/-/fleet/live", Accept="text/event-stream")
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert "You are signed out" in stream.body.decode()
    assert stream.body.decode().endswith("event: over\ndata: over\n\n")
