"""The settings that docs/signing-in.md gives for Keycloak, Entra ID and GitLab, with claims in the form that
their documentation shows. The provider is `oidc-provider`, which sends these claims: none of the three runs
here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from adaptry.registry.sso import ProviderGroupRequest
from adaptry_api.settings import SsoSettings
from adaptry_api.testing import Server

from .browser import Browser, sign_in_at_provider
from .test_sign_in_certified import CLIENT, NEEDS_NODE, SECRET, CertifiedProvider, browser, members, provider

pytestmark = [pytest.mark.slow, NEEDS_NODE]
__all__ = ["browser", "provider"]  # fixtures
KEYCLOAK_ID, ENTRA_ID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ"
GROUP_ID = "5b1c2f0e-3d0a-4c0e-9c55-6d3f2f0f9d11"


@dataclass(frozen=True)
class Shape:
    """A provider: the settings of the page, the claims by scope, and those of a user with this subject."""

    path: str
    scopes: str
    groups_claim: str
    claims: dict[str, list[str]]
    subject: str
    user: dict[str, Any]
    group: str
    name: str


PROFILE = {"profile": ["preferred_username", "name"], "email": ["email", "email_verified"]}
ADA = {"name": "Ada L", "preferred_username": "ada", "email": "ada@example.com", "email_verified": True}
SHAPES = {
    "keycloak": Shape(
        "/realms/acme",
        "profile email",
        "groups",
        {"openid": ["sub", "groups"], **PROFILE},
        KEYCLOAK_ID,
        {**ADA, "groups": ["ml-engineers", "offline"]},
        "ml-engineers",
        "ada",
    ),
    "entra": Shape(
        "/6f1a3c2e-0000-4000-8000-5e1f6a7b8c9d/v2.0",
        "profile email offline_access",
        "groups",
        {"openid": ["sub", "groups", "oid", "tid", "_claim_names", "_claim_sources"], **PROFILE},
        ENTRA_ID,
        {**ADA, "preferred_username": "ada@example.com", "oid": KEYCLOAK_ID, "groups": [GROUP_ID]},
        GROUP_ID,
        "ada@example.com",
    ),
    "gitlab-direct": Shape(
        "",
        "profile email",
        "groups_direct",
        {"openid": ["sub", "groups", "groups_direct"], **PROFILE},
        "12",
        {**ADA, "id_token": {"groups_direct": ["acme/ml"]}, "userinfo": {"groups": ["acme", "acme/ml"]}},
        "acme/ml",
        "ada",
    ),
    "gitlab-userinfo": Shape(
        "",
        "profile email",
        "groups",
        {"openid": ["sub", "groups", "groups_direct"], **PROFILE},
        "12",
        {**ADA, "id_token": {"groups_direct": ["acme/ml"]}, "userinfo": {"groups": ["acme", "acme/ml"]}},
        "acme",  # inherited
        "ada",
    ),
}
Serve = Callable[[Shape], Server]


@pytest.fixture
def serve(start: Callable[..., Server], provider: CertifiedProvider, confirmed_by_tests_only: None) -> Serve:
    """Starts a server with a shape's settings, and the provider with its claims."""

    def make(shape: Shape) -> Server:
        provider.path, provider.claims = shape.path, shape.claims
        provider.users = {shape.subject: shape.user}
        provider.apply()
        sso = SsoSettings(provider.url, CLIENT, SECRET, tuple(shape.scopes.split()), shape.groups_claim)
        server = start(allow_outgoing=("127.0.0.0/8",), sso=sso)
        provider.redirect_uri = f"{server.url}/-/sign-in/provider/callback"
        provider.apply()
        registry = server.registry()
        registry.principals.create_group("ml-team")
        registry.sso.map_group(ProviderGroupRequest(claim=shape.group, group="ml-team"))
        return server

    return make


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_settings_of_the_page_fit_the_claims_of_the_provider(
    shape: Shape, serve: Serve, browser: Browser
) -> None:
    server = serve(shape)
    answer = sign_in_at_provider(browser, server.url, login=shape.subject)
    assert (answer.status, answer.headers["Location"]) == (303, "/acme"), answer.text
    assert members(server) == (shape.name,)


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "keycloak with the full path": ("keycloak", {"groups": ["/ml-engineers"]}),
    "entra with more than 200 groups": (
        "entra",
        {
            "groups": None,
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.example.com/getMemberObjects"}},
        },
    ),
    "entra with names": ("entra", {"groups": ["ml-engineers"]}),
}


@pytest.mark.parametrize(("name", "claims"), WRONG.values(), ids=WRONG)
def test_a_group_in_another_shape_is_no_group(
    name: str, claims: dict[str, Any], serve: Serve, browser: Browser
) -> None:
    shape = SHAPES[name]
    user = {key: value for key, value in {**shape.user, **claims}.items() if value is not None}
    server = serve(Shape(**{**vars(shape), "user": user}))
    answer = sign_in_at_provider(browser, server.url, login=shape.subject)
    assert answer.status == 403, answer.text
    assert members(server) == ()
