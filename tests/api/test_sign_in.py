"""Sign-in: which responses of a provider are refused, and what the session cookie permits."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc.jwk import ECKey

from adaptry.core.errors import PermissionDenied
from adaptry.registry.access import GrantRequest, InvitationRequest, MemberChange, TokenRequest
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.sso import ExternalUserRequest, ProviderGroupRequest
from adaptry.storage import sign_ins
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry_api.app_state import AppState
from adaptry_api.pages import provider_sign_in
from adaptry_api.settings import ServerSettings, SsoSettings
from adaptry_api.sign_in.confirmation import confirm_users
from adaptry_api.testing import Server, running_server

from .browser import Browser, Page
from .local_issuer import HeldRequests, LocalIssuer, rsa_key, running_issuer

CLIENT = "adaptry"


@dataclass
class Provider:
    """A provider whose answer to a code is chosen by the test; ID tokens are signed by its issuer."""

    issuer: LocalIssuer
    server: Server

    def begin(self, browser: Browser, next: str = "/") -> dict[str, str]:
        """Begins a sign-in; returns the parameters of the request to the provider."""
        page = browser.get(f"{self.server.url}/-/sign-in/provider?{urlencode({'next': next})}")
        assert page.status == 303, page.text
        return {name: values[0] for name, values in parse_qs(urlsplit(page.next).query).items()}

    def token(self, begun: dict[str, str], **claims: Any) -> str:
        usual = {"aud": CLIENT, "sub": "00u1", "nonce": begun["nonce"], "groups": ["staff"]}
        named = {"preferred_username": f"ann-{secrets.token_hex(4)}"}
        return self.issuer.token(**(usual | named | claims))

    def finish(self, browser: Browser, begun: dict[str, str], answer: Any, **changes: str) -> Page:
        self.issuer.answers["/token"] = answer
        query = urlencode({"code": "c", "state": begun["state"]} | changes)
        return browser.get(f"{self.server.url}/-/sign-in/provider/callback?{query}")

    def sign_in(self, browser: Browser, next: str = "/", **claims: Any) -> Page:
        begun = self.begin(browser, next)
        return self.finish(browser, begun, {"id_token": self.token(begun, **claims), "refresh_token": "r"})


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory, confirmed_by_tests_only: None) -> Iterator[Provider]:
    with running_issuer() as issuer:
        sso = SsoSettings(issuer.url, CLIENT, "s3cret")
        settings = ServerSettings(
            data=tmp_path_factory.mktemp("registry"), allow_outgoing=("127.0.0.0/8",), sso=sso
        )
        with running_server(settings) as server:
            registry = server.registry()
            registry.principals.create_group("company")
            registry.sso.map_group(ProviderGroupRequest(claim="staff", group="company"))
            yield Provider(issuer, server)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with closing(Browser()) as opened:
        yield opened


def test_the_provider_is_asked_with_pkce_state_and_nonce(provider: Provider, browser: Browser) -> None:
    first, second = provider.begin(browser), provider.begin(browser)
    assert (first["response_type"], first["code_challenge_method"]) == ("code", "S256")
    assert first["redirect_uri"] == f"{provider.server.url}/-/sign-in/provider/callback"
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 32 and first[name] != second[name]


def test_the_verifier_and_the_clients_secret_are_sent_with_the_code(
    provider: Provider, browser: Browser
) -> None:
    assert provider.sign_in(browser, sub="00pkce").status == 303
    form = parse_qs(provider.issuer.bodies[-1].decode())
    assert form["grant_type"] == ["authorization_code"] and len(form["code_verifier"][0]) >= 43
    assert provider.issuer.authorizations[-1] == "Basic YWRhcHRyeTpzM2NyZXQ="


def test_answers_that_are_not_of_this_provider_and_sign_in_are_refused(
    provider: Provider, browser: Browser
) -> None:
    now = int(time.time())
    for claims, sentence in (
        ({"nonce": "another"}, "belongs to another sign-in"),
        ({"nonce": None}, "belongs to another sign-in"),
        ({"aud": "another"}, "must be for"),
        ({"aud": [CLIENT, "another"]}, "must be for"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"exp": now - 90}, "has expired"),
        ({"iat": now + 90}, "not valid yet"),
        ({"sub": None}, "names no user"),
        ({"key": rsa_key("attacker"), "header": {"kid": provider.issuer.key.kid}}, "signature"),
        ({"key": rsa_key("attacker")}, "a key that its issuer does not have"),
    ):
        page = provider.sign_in(browser, **claims)
        assert page.status == 401 and sentence in page.text, (claims, page.text)
    begun = provider.begin(browser)
    _, body, _ = provider.token(begun).split(".")
    unsigned = provider.finish(browser, begun, {"id_token": f"eyJhbGciOiJub25lIn0.{body}."})
    assert unsigned.status == 401 and "RS256 and ES256 are accepted" in unsigned.text
    begun = provider.begin(browser)
    assert provider.finish(browser, begun, {"access_token": "x"}).status == 401
    begun = provider.begin(browser)
    refused = provider.finish(browser, begun, (400, {"error": "invalid_grant"}))
    assert refused.status == 401
    assert "adaptry_session" not in browser.cookies[urlsplit(provider.server.url).netloc]


def test_a_callback_of_another_browser_state_or_provider_is_refused(
    provider: Provider, browser: Browser
) -> None:
    begun = provider.begin(browser)
    answer = {"id_token": provider.token(begun)}
    with closing(Browser()) as other:
        assert provider.finish(other, begun, answer).status == 401
    assert provider.finish(browser, begun | {"state": "x" * 32}, answer).status == 401
    assert provider.finish(browser, begun, answer, iss="https://evil.example").status == 401
    assert provider.finish(browser, begun, answer, error="access_denied").status == 401
    assert provider.finish(browser, begun, answer, iss=provider.issuer.url).status == 303
    assert provider.finish(browser, begun, answer).status == 401, "a callback works once"


def test_new_keys_are_fetched_and_an_unreachable_provider_is_reported(
    provider: Provider, browser: Browser
) -> None:
    assert provider.sign_in(browser, sub="00keys").status == 303
    provider.issuer.rotate(
        ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig"}, private=True)
    )
    assert provider.sign_in(browser, sub="00keys").status == 303
    begun = provider.begin(browser)
    away = provider.finish(browser, begun, (503, {}))
    assert away.status == 503 and "Traceback" not in away.text
    begun = provider.begin(browser)
    assert provider.finish(browser, begun, (200, ["nonsense"])).status == 503


def test_a_user_needs_a_mapped_group_or_a_link_and_cannot_take_an_existing_name(
    provider: Provider, browser: Browser
) -> None:
    registry = provider.server.registry()
    nobody = provider.sign_in(browser, sub="00none", groups=["others"])
    assert nobody.status == 403 and "none of your groups may sign in" in nobody.text
    taken = provider.sign_in(browser, sub="00root", preferred_username="root")
    assert taken.status == 403 and "there is a user root already" in taken.text
    twin = provider.sign_in(browser, sub="00root", preferred_username="Root")
    assert twin.status == 403 and "there is a user root already" in twin.text
    reserved = provider.sign_in(browser, sub="local", preferred_username="local", email=None)
    assert reserved.status == 403
    registry.principals.create("user", "olga")
    registry.sso.link_user(ExternalUserRequest(user="olga", issuer=provider.issuer.url, subject="00olga"))
    assert provider.sign_in(browser, sub="00olga", groups=[], preferred_username="x").status == 303
    assert "olga" in browser.get(f"{provider.server.url}/").text
    registry.principals.set_disabled("olga", True)
    assert provider.sign_in(browser, sub="00olga", groups=["staff"]).status == 403


def test_groups_follow_the_claim_at_every_sign_in(provider: Provider, browser: Browser) -> None:
    def members() -> tuple[str, ...]:
        groups = provider.server.registry().principals.groups().items
        return next(one.members for one in groups if one.name == "company")

    provider.sign_in(browser, sub="00gina", preferred_username="gina")
    assert "gina" in members()
    assert provider.sign_in(browser, sub="00gina", groups=[]).status == 403
    assert "gina" not in members()
    provider.sign_in(browser, sub="00gina", groups="staff")
    assert "gina" in members()


def test_a_user_who_left_all_mapped_groups_has_no_access(provider: Provider, browser: Browser) -> None:
    registry, home = provider.server.registry(), f"{provider.server.url}/"
    provider.sign_in(browser, sub="00moved", preferred_username="moritz")
    registry.grants.set_member("acme", MemberChange(principal="moritz", role="viewer"))
    made = derived_token(provider.server, "moritz")
    assert provider.server.call("GET", "/api/v1/whoami", token=made).status == 200

    age(provider.server, "00moved")
    without = provider.issuer.token(aud=CLIENT, sub="00moved", groups=["others"])
    provider.issuer.answers["/token"] = {"id_token": without}
    assert confirm(provider) == 1
    registry.principals.set_disabled("moritz", False)  # drops what the server remembers
    assert provider.server.call("GET", "/api/v1/whoami", token=made).status == 401
    assert browser.get(home).status != 200
    again = provider.sign_in(browser, sub="00moved", groups=["others"])
    assert again.status == 403 and "none of your groups may sign in" in again.text
    ended = registry.audit.list(AuditFilter(action="session.end", resource="moritz"), None, 20).items
    because = {"because": "the user is in no mapped group of the identity provider"}
    assert [one.after for one in ended] == [because, because]

    linked = ExternalUserRequest(user="moritz", issuer=provider.issuer.url, subject="00moved")
    registry.sso.link_user(linked)
    assert provider.sign_in(browser, sub="00moved", groups=["others"]).status == 303


def test_a_sign_in_without_a_mapped_group_ends_the_earlier_session(
    provider: Provider, browser: Browser
) -> None:
    home = f"{provider.server.url}/"
    provider.sign_in(browser, sub="00once", preferred_username="onno")
    made = derived_token(provider.server, "onno")
    with closing(Browser()) as other:
        assert provider.sign_in(other, sub="00once", groups=[]).status == 403
    assert browser.get(home).status != 200
    provider.server.registry().principals.set_disabled("onno", False)  # drops what the server remembers
    assert provider.server.call("GET", "/api/v1/whoami", token=made).status == 401


def test_signing_out_ends_the_session_and_its_token(provider: Provider, browser: Browser) -> None:
    url, home = provider.server.url, f"{provider.server.url}/"
    provider.sign_in(browser, sub="00out")
    jar = browser.cookies[urlsplit(url).netloc]
    cookie = dict(jar)
    assert browser.post(f"{url}/-/sign-out", {}, origin="https://evil.example").status == 403
    assert browser.get(home).status == 200
    assert browser.post(f"{url}/-/sign-out", {}, origin=url).status == 303
    assert "adaptry_session" not in jar and browser.get(home).status != 200
    jar.update(cookie)  # a stolen copy of the cookie
    assert browser.get(home).status != 200


def test_signing_out_holds_no_schedules_and_leaving_the_provider_does(
    provider: Provider, browser: Browser
) -> None:
    registry, (name, subject) = provider.server.registry(), administrator(provider, browser)
    local = as_signed_in(provider.server, name)
    try:
        local.jobs.schedule(name, "30 2 * * *", JobOrder(kind="verify", task={}))
    finally:
        local.close()

    def is_held() -> bool:
        return next(one.is_held for one in registry.jobs.schedules() if one.name == name)

    url = provider.server.url
    assert browser.post(f"{url}/-/sign-out", {}, origin=url).status == 303
    assert browser.get(f"{url}/").status != 200
    assert not is_held()
    age(provider.server, subject)
    provider.issuer.answers["/token"] = (400, {"error": "invalid_grant"})
    assert confirm(provider) == 1
    assert is_held()


def test_the_session_is_for_pages_only(provider: Provider, browser: Browser) -> None:
    provider.sign_in(browser, sub="00rest")
    assert browser.get(f"{provider.server.url}/").status == 200
    assert browser.get(f"{provider.server.url}/api/v1/whoami").status == 401


def test_the_sign_in_page_links_to_the_provider(provider: Provider, browser: Browser) -> None:
    page = browser.get(f"{provider.server.url}/-/sign-in?next=/acme/tone")
    assert '/-/sign-in/provider?next=%2Facme%2Ftone"' in page.text


def test_the_cookie_over_https_is_bound_to_the_host(provider: Provider) -> None:
    sso = SsoSettings(provider.issuer.url, CLIENT, "s3cret")
    settings = ServerSettings(
        data=provider.server.data, allow_outgoing=("127.0.0.0/8",), proxies=("127.0.0.1",), sso=sso
    )
    with running_server(settings) as server:
        secure = server.call("GET", "/-/sign-in/provider", token=None, headers={"X-Forwarded-Proto": "https"})
    cookie = secure.headers["Set-Cookie"]
    assert cookie.startswith("__Host-adaptry_sign_in=")
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


def test_a_session_and_its_tokens_stop_an_hour_after_the_last_confirmation(
    provider: Provider, browser: Browser
) -> None:
    home = f"{provider.server.url}/"
    provider.sign_in(browser, sub="00hour", preferred_username="henry")
    made = derived_token(provider.server, "henry")
    assert browser.get(home).status == 200
    change = (
        "UPDATE external_users SET confirmed_at = datetime('now', '-61 minutes') WHERE subject = '00hour'"
    )
    with closing(sqlite3.connect(provider.server.data / "catalog.sqlite")) as database, database:
        database.execute(change)
    assert browser.get(home).status != 200
    refused = provider.server.call("GET", "/api/v1/whoami", token=made)
    assert refused.status == 401 and "has not confirmed" in refused.json["detail"]
    provider.sign_in(browser, sub="00hour")
    assert provider.server.call("GET", "/api/v1/whoami", token=made).status == 200


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"id_token": "not.a.token", "refresh_token": "newer"}, id="an answer that is not valid"),
        pytest.param((503, {"error": "away"}), id="a provider that is away"),
    ],
)
def test_a_temporary_failure_ends_no_session(provider: Provider, browser: Browser, answer: Any) -> None:
    subject = f"00pass{secrets.token_hex(3)}"
    provider.sign_in(browser, sub=subject)
    age(provider.server, subject)
    provider.issuer.answers["/token"] = answer
    assert confirm(provider) == 0
    assert browser.get(f"{provider.server.url}/").status == 200
    wake(provider.server, subject)
    provider.issuer.answers["/token"] = (400, {"error": "invalid_grant"})
    assert confirm(provider) == 1
    assert browser.get(f"{provider.server.url}/").status != 200
    expected = "newer" if isinstance(answer, dict) else "r"
    asked = [body for body in provider.issuer.bodies if b"grant_type=refresh_token" in body]
    assert f"refresh_token={expected}" in asked[-1].decode().split("&")


def test_a_replaced_secret_ends_no_session(provider: Provider, browser: Browser) -> None:
    provider.sign_in(browser, sub="00seal")
    with closing(sqlite3.connect(provider.server.data / "catalog.sqlite")) as database, database:
        database.execute("UPDATE external_users SET refresh_token = 'unreadable' WHERE subject = '00seal'")
    age(provider.server, "00seal")
    assert confirm(provider) == 0
    assert browser.get(f"{provider.server.url}/").status == 200


def test_an_answer_about_an_older_sign_in_is_ignored(provider: Provider, browser: Browser) -> None:
    provider.sign_in(browser, sub="00twice")
    age(provider.server, "00twice")
    older = sign_ins.claim_due(provider.server.catalog, provider.issuer.url)
    assert older is not None and older.subject == "00twice"
    provider.sign_in(browser, sub="00twice")
    sign_ins.end(provider.server.catalog, older)
    assert browser.get(f"{provider.server.url}/").status == 200


def test_an_expired_sign_in_is_refused(
    provider: Provider, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_sign_in, "_SECONDS", -1)
    begun = provider.begin(browser)
    monkeypatch.undo()
    page = provider.finish(browser, begun, {"id_token": provider.token(begun)})
    assert page.status == 401 and "has expired" in page.text


def test_a_confirmation_about_another_user_ends_the_sign_in(provider: Provider, browser: Browser) -> None:
    provider.sign_in(browser, sub="00mine")
    age(provider.server, "00mine")
    provider.issuer.answers["/token"] = {
        "id_token": provider.issuer.token(aud=CLIENT, sub="00other", groups=["staff"])
    }
    assert confirm(provider) == 1
    assert browser.get(f"{provider.server.url}/").status != 200


def test_groups_of_another_user_are_not_taken(tmp_path: Path, browser: Browser) -> None:
    with running_issuer() as issuer:
        issuer.user_info = {"sub": "00other", "groups": ["staff"]}
        sso = SsoSettings(issuer.url, CLIENT, "s3cret")
        settings = ServerSettings(data=tmp_path, allow_outgoing=("127.0.0.0/8",), sso=sso)
        with running_server(settings) as server:
            server.registry().principals.create_group("company")
            server.registry().sso.map_group(ProviderGroupRequest(claim="staff", group="company"))
            provider = Provider(issuer, server)
            refused = provider.sign_in(browser, sub="00mine", groups=None)
            assert refused.status == 401 and "returned a different user" in refused.text
            issuer.user_info = {"sub": "00mine", "groups": ["staff"]}
            assert provider.sign_in(browser, sub="00mine", groups=None).status == 303


def test_a_provider_that_does_not_answer_occupies_eight_threads_at_most(provider: Provider) -> None:
    provider.issuer.held = held = HeldRequests()
    browsers = [Browser() for _ in range(12)]
    try:
        begun = [provider.begin(one) for one in browsers]
        with ThreadPoolExecutor(len(browsers)) as pool:
            try:
                for one, sign_in in zip(browsers, begun, strict=True):
                    pool.submit(provider.finish, one, sign_in, {})
                assert held.wait_until(8)
                fresh = provider.server.token(f"reader-{secrets.token_hex(4)}", "reader", ("acme",))
                assert provider.server.call("GET", "/api/v1/whoami", token=fresh).status == 200
                assert held.most == 8
            finally:
                held.release()
        assert held.most == 8
    finally:
        provider.issuer.held = None
        for one in browsers:
            one.close()


def test_an_administrator_by_a_group_loses_the_role_with_the_group(
    provider: Provider, browser: Browser
) -> None:
    name, subject = administrator(provider, browser)
    local = as_signed_in(provider.server, name)
    try:
        own = local.tokens.create(TokenRequest(name="laptop", principal=name)).secret
        narrowed = local.tokens.create(TokenRequest(name=name, role="admin", namespaces=("*",))).secret
        with pytest.raises(PermissionDenied, match="signs in at the identity provider"):
            local.principals.invite(InvitationRequest(name=name))
    finally:
        local.close()
    assert administers(provider.server, own) and administers(provider.server, narrowed)
    age(provider.server, subject)
    provider.issuer.answers["/token"] = {
        "id_token": provider.issuer.token(aud=CLIENT, sub=subject, groups=["staff"])
    }
    assert confirm(provider) == 0
    provider.server.registry().principals.set_disabled(name, False)  # drops what the server remembers
    assert not administers(provider.server, own) and not administers(provider.server, narrowed)
    assert provider.server.call("GET", "/api/v1/whoami", token=own).status == 200, "still signed in"


def test_an_administrator_who_left_loses_tokens_and_groups(provider: Provider, browser: Browser) -> None:
    name, subject = administrator(provider, browser)
    registry = provider.server.registry()
    local = as_signed_in(provider.server, name)
    try:
        narrowed = local.tokens.create(TokenRequest(name=name, role="admin", namespaces=("*",))).secret
    finally:
        local.close()
    given = registry.tokens.create(TokenRequest(name="given", principal=name)).secret
    assert administers(provider.server, narrowed) and administers(provider.server, given)
    age(provider.server, subject)
    provider.issuer.answers["/token"] = (400, {"error": "invalid_grant"})
    assert confirm(provider) == 1
    registry.principals.set_disabled(name, False)
    for token in (narrowed, given):
        assert not administers(provider.server, token)
    assert provider.server.call("GET", "/api/v1/whoami", token=narrowed).status == 401
    assert name not in next(one.members for one in registry.principals.groups().items if one.name == "wheel")


def administrator(provider: Provider, browser: Browser) -> tuple[str, str]:
    """Name and subject of a signed-in user who is an administrator only because of a group at the
    provider.
    """
    registry = provider.server.registry()
    if not any(one.name == "wheel" for one in registry.principals.groups().items):
        registry.principals.create_group("wheel")
        registry.grants.add(GrantRequest(group="wheel", permission="admin", resource="*"))
        registry.sso.map_group(ProviderGroupRequest(claim="root", group="wheel"))
    name = f"adele-{secrets.token_hex(4)}"
    page = provider.sign_in(browser, sub=f"00{name}", preferred_username=name, groups=["staff", "root"])
    assert page.status == 303, page.text
    return name, f"00{name}"


def administers(server: Server, token: str) -> bool:
    return server.call("GET", "/api/v1/sso/users", token=token).status == 200


def age(server: Server, subject: str) -> None:
    """Makes the provider's last confirmation of this user (but of no other) half an hour old."""
    with closing(sqlite3.connect(server.data / "catalog.sqlite")) as database, database:
        database.execute("UPDATE external_users SET claimed_until = '9999-01-01 00:00:00.000000'")
        database.execute(
            "UPDATE external_users SET confirmed_at = datetime('now', '-30 minutes'), claimed_until = NULL"
            " WHERE subject = ?",
            (subject,),
        )


def wake(server: Server, subject: str) -> None:
    """Ends the two minutes in which no other server asks the provider about this user."""
    with closing(sqlite3.connect(server.data / "catalog.sqlite")) as database, database:
        database.execute("UPDATE external_users SET claimed_until = NULL WHERE subject = ?", (subject,))


def confirm(provider: Provider) -> int:
    """Runs the server's periodic confirmation now, in another server of the same registry."""
    sso = SsoSettings(provider.issuer.url, CLIENT, "s3cret")
    state = AppState(ServerSettings(data=provider.server.data, allow_outgoing=("127.0.0.0/8",), sso=sso))
    try:
        assert state.openid_provider is not None
        return confirm_users(state.catalog, state.openid_provider)
    finally:
        state.close()


def test_the_refresh_token_is_not_stored_as_it_is(provider: Provider, browser: Browser) -> None:
    provider.sign_in(browser, sub="00kept")
    with closing(sqlite3.connect(provider.server.data / "catalog.sqlite")) as database:
        stored = database.execute(
            "SELECT refresh_token FROM external_users WHERE subject = '00kept'"
        ).fetchone()[0]
    assert len(stored) > 50 and stored != "r"


def test_signing_in_and_out_is_in_the_audit_log(provider: Provider, browser: Browser) -> None:
    provider.sign_in(browser, sub="00log", preferred_username="logan")
    browser.post(f"{provider.server.url}/-/sign-out", {}, origin=provider.server.url)
    entries = provider.server.registry().audit.list(AuditFilter(actor="logan"), None, 20).items
    assert [one.action for one in entries if one.action.startswith("session.")] == [
        "session.end",
        "session.start",
    ]


def test_a_server_without_a_provider_has_no_sign_in(tmp_path: Any) -> None:
    with running_server(ServerSettings(data=tmp_path)) as server:
        assert server.call("GET", "/-/sign-in/provider", token=None).status == 404


def derived_token(server: Server, user: str) -> str:
    """A token made by the user's session, with the session's rights and expiry."""
    local = as_signed_in(server, user)
    try:
        return local.tokens.create(TokenRequest(name="laptop", principal=user)).secret
    finally:
        local.close()


def as_signed_in(server: Server, user: str) -> LocalRegistry:
    """The registry with the identity of the user's only session."""
    catalog = server.catalog
    with catalog.read() as tx:
        (session,) = [one for one in kept.every(tx) if one.principal == user and one.kind == "ses"]
        record = kept.by_id(tx, session.id)
        assert record is not None
        identity = kept.identity_of(tx, record)
    return open_local(server.data, identity)
