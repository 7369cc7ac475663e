"""Sign-in with a real provider, canaille, in this process: code flow, groups, confirmation, removed users."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from joserfc.jwk import RSAKey
from tests.api.browser import Browser, Page, sign_in_at_provider
from tests.api.test_sign_in import derived_token
from werkzeug.serving import make_server

from adaptry.core.errors import Unauthenticated
from adaptry.registry.sso import ProviderGroupRequest
from adaptry.storage import tokens
from adaptry_api.app_state import AppState
from adaptry_api.settings import ServerSettings, SsoSettings
from adaptry_api.sign_in.confirmation import confirm_users
from adaptry_api.testing import Server

CLIENT, SECRET = "adaptry", "s3cret"


@dataclass
class Canaille:
    """The provider, with the user ada in the group ml-team. (`Any`: its models have no types.)"""

    url: str
    app: Any
    client: Any
    ada: Any

    def redirect_to(self, server: Server) -> None:
        with self.app.app_context():
            self.client.redirect_uris = [f"{server.url}/-/sign-in/provider/callback"]
            Backend.instance.save(self.client)

    def remove_ada(self) -> None:
        """Removes the user with their tokens, as a directory does when a user leaves."""
        with self.app.app_context():
            for token in Backend.instance.query(models.Token):
                Backend.instance.delete(token)
            Backend.instance.delete(self.ada)


@pytest.fixture
def provider() -> Iterator[Canaille]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bound = make_server("127.0.0.1", 0, lambda *_: [], threaded=True)
    port = bound.server_port
    key = RSAKey.generate_key(2048, private=True)
    app = create_app(
        config={
            "SECRET_KEY": "test",
            "SERVER_NAME": f"127.0.0.1:{port}",
            "PREFERRED_URL_SCHEME": "http",
            "CANAILLE": {
                "DATABASE": "memory",
                "CAPTCHA_ENABLED": False,
                "ENABLE_PASSWORD_COMPROMISSION_CHECK": False,
            },
            "CANAILLE_OIDC": {"ACTIVE_JWKS": [key.as_dict(private=True)]},
        }
    )
    bound.app = app
    with app.app_context():
        backend = Backend.instance
        ada = models.User(
            user_name="ada",
            password="correct horse",
            emails=["ada@example.org"],
            family_name="L",
            given_name="Ada",
        )
        backend.save(ada)
        backend.save(models.Group(display_name="ml-team", members=[ada]))
        client = models.Client(
            client_id=CLIENT,
            client_secret=SECRET,
            client_name="Adaptry",
            redirect_uris=["http://127.0.0.1/"],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            scope=["openid", "profile", "email", "groups"],
            token_endpoint_auth_method="client_secret_basic",
            id_token_signed_response_alg="RS256",
        )
        backend.save(client)
        client.audience = [client]
        backend.save(client)
    thread = threading.Thread(target=bound.serve_forever, daemon=True)
    thread.start()
    yield Canaille(f"http://127.0.0.1:{port}", app, client, ada)
    bound.shutdown()
    bound.server_close()
    thread.join()


@pytest.fixture
def server(start: Callable[..., Server], provider: Canaille, confirmed_by_tests_only: None) -> Server:
    sso = SsoSettings(provider.url, CLIENT, SECRET, ("profile", "email", "groups"))
    server = start(allow_outgoing=("127.0.0.0/8",), sso=sso)
    provider.redirect_to(server)
    registry = server.registry()
    registry.principals.create_group("engineers")
    registry.sso.map_group(ProviderGroupRequest(claim="ml-team", group="engineers"))
    return server


@pytest.fixture
def browser() -> Iterator[Browser]:
    with closing(Browser()) as opened:
        yield opened


def test_a_user_signs_in_joins_the_mapped_group_and_signs_out(
    server: Server, provider: Canaille, browser: Browser
) -> None:
    answer = sign_in_at_provider(browser, server.url)
    assert (answer.status, answer.headers["Location"]) == (303, "/acme"), answer.text
    cookie = next(one for one in answer.headers.getlist("set-cookie") if one.startswith("adaptry_session="))
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    assert "ada@example.org" in browser.get(f"{server.url}/").text
    assert server.registry().principals.groups().items[0].members == ("ada@example.org",)
    (listed,) = server.registry().sso.list_users().items
    assert (listed.user, listed.issuer) == ("ada@example.org", provider.url)
    assert browser.post(f"{server.url}/-/sign-out", {}, origin=server.url).status == 303
    assert browser.get(f"{server.url}/").status != 200


def test_a_code_and_a_callback_are_used_once_in_the_browser_that_began(
    server: Server, provider: Canaille, browser: Browser
) -> None:
    seen: list[str] = []
    real = browser.get

    def recording(url: str) -> Page:
        seen.append(url)
        return real(url)

    browser.get = recording  # type: ignore[method-assign]
    sign_in_at_provider(browser, server.url)
    callback = next(url for url in seen if url.startswith(f"{server.url}/-/sign-in/provider/callback"))
    assert parse_qs(urlsplit(callback).query)["code"]
    assert real(callback).status == 401, "its cookie is gone"
    with closing(Browser()) as other:
        assert other.get(callback).status == 401, "another browser"


def test_a_former_user_loses_session_and_derived_tokens(
    server: Server, provider: Canaille, browser: Browser
) -> None:
    sign_in_at_provider(browser, server.url)
    made = derived_token(server, "ada@example.org")
    assert tokens.identify(server.catalog, made).name == "ada@example.org"
    provider.remove_ada()
    _age(server, minutes=30)
    assert _confirm(server, provider) == 1
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.identify(server.catalog, made)
    assert browser.get(f"{server.url}/").status != 200


def test_a_user_who_still_exists_is_confirmed(server: Server, provider: Canaille, browser: Browser) -> None:
    sign_in_at_provider(browser, server.url)
    _age(server, minutes=30)
    assert _confirm(server, provider) == 0
    (user,) = server.registry().sso.list_users().items
    assert user.confirmed_at is not None and user.ended_at is None
    assert browser.get(f"{server.url}/").status == 200


def _age(server: Server, minutes: int) -> None:
    """Lets time pass since the provider's last confirmation."""
    with closing(sqlite3.connect(server.data / "catalog.sqlite")) as database, database:
        database.execute(
            "UPDATE external_users SET confirmed_at = datetime(confirmed_at, ?)", (f"-{minutes} minutes",)
        )


def _confirm(server: Server, provider: Canaille) -> int:
    """Runs the server's periodic confirmation now, in another server of the same registry."""
    sso = SsoSettings(provider.url, CLIENT, SECRET, ("profile", "email", "groups"))
    state = AppState(ServerSettings(data=server.data, allow_outgoing=("127.0.0.0/8",), sso=sso))
    try:
        assert state.openid_provider is not None
        return confirm_users(state.catalog, state.openid_provider)
    finally:
        state.close()
