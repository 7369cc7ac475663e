"""The consequences for the server and its users if an identity provider is down, slow or failing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from adaptry.core.errors import Unavailable
from adaptry.core.outgoing_requests.addresses import parse_network
from adaptry.core.outgoing_requests.connector import GuardedConnector
from adaptry.registry.pagination import iter_items
from adaptry.registry.sso import ProviderGroupRequest
from adaptry.storage import sign_ins
from adaptry.storage.connect import open_local
from adaptry_api.oauth.issuer_keys import IssuerKeys
from adaptry_api.settings import ServerSettings, SsoSettings
from adaptry_api.sign_in.confirmation import confirm_users
from adaptry_api.sign_in.provider import OpenIdProvider
from adaptry_api.signed_grants import GrantSigner
from adaptry_api.testing import running_server

from .local_issuer import HeldRequests, LocalIssuer, running_issuer

CLIENT = "adaptry"
AWAY = (503, {"error": "away"})
UNCLEAR = (400, {"error": "unauthorized_client"})


class Scene:
    """A registry whose users signed in half an hour ago, so that they are due to be confirmed. Their subjects
    are also their codes and refresh tokens. Each request takes two seconds on the clock of the server.
    """

    def __init__(self, issuer: LocalIssuer, data: Path) -> None:
        self.issuer, self.data, self.passed = issuer, data, 0.0
        self.registry = open_local(data)
        self.registry.principals.create_group("company")
        self.registry.sso.map_group(ProviderGroupRequest(claim="staff", group="company"))
        self.sso = SsoSettings(issuer.url, CLIENT, "s3cret")
        connector = GuardedConnector((parse_network("127.0.0.0/8"),))
        signer = GrantSigner(data / "upload-secret", None)
        self.provider = OpenIdProvider(
            self.sso,
            connector,
            IssuerKeys(connector),
            lambda: signer.derived_key("refresh"),
            lambda: self.passed + 2.0 * len(issuer.bodies),
        )
        self.fails: dict[str, Any] = {}
        issuer.answers["/token"] = self._answer

    def sign_in(self, *subjects: str) -> None:
        for subject in subjects:
            user = self.provider.user_of_code(subject, "http://here/callback", "n", "v")
            sign_ins.sign_in(self.registry.catalog, user, datetime.now(UTC) - timedelta(minutes=30))
        self.issuer.bodies.clear()

    def confirm(self, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Runs one round of confirmations; returns the number of requests."""
        before = len(self.issuer.bodies)
        confirm_users(self.registry.catalog, self.provider, is_stopping)
        return len(self.issuer.bodies) - before

    def confirmed(self) -> set[str]:
        """The subjects of users whom the provider has confirmed since then."""
        lately = datetime.now(UTC) - timedelta(minutes=20)
        every = iter_items(self.registry.sso.list_users)
        return {one.subject for one in every if one.confirmed_at and one.confirmed_at > lately}

    def _answer(self, body: bytes) -> Any:
        form = parse_qs(body.decode())
        (subject,) = form.get("code") or form["refresh_token"]
        claims = {"aud": CLIENT, "sub": subject, "nonce": "n", "groups": ["staff"]}
        token = self.issuer.token(**claims, preferred_username=subject)
        return self.fails.get(subject, {"id_token": token, "refresh_token": subject})


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with running_issuer() as issuer:
        made = Scene(issuer, tmp_path / "data")
        with closing(made.registry):
            yield made


def users(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


def test_several_users_are_confirmed_at_once_and_no_more_once_the_server_stops(scene: Scene) -> None:
    scene.sign_in(*users(12))
    scene.issuer.held = held = HeldRequests()
    is_stopping = threading.Event()
    confirming = threading.Thread(target=scene.confirm, args=(is_stopping.is_set,))
    confirming.start()
    try:
        assert held.wait_until(4)
    finally:
        is_stopping.set()
        held.release()
        confirming.join()
    assert len(scene.issuer.bodies) == len(scene.confirmed()) == 4

    scene.issuer.held = None
    assert scene.confirm() == 8
    assert scene.confirmed() == set(users(12))


@pytest.mark.slow  # ten seconds, after which the server gives up the requests that it waits for
def test_a_server_stops_although_the_provider_does_not_answer(scene: Scene) -> None:
    scene.sign_in(*users(12))
    scene.issuer.held = held = HeldRequests()
    settings = ServerSettings(data=scene.data, allow_outgoing=("127.0.0.0/8",), sso=scene.sso)
    try:
        with running_server(settings):
            assert held.wait_until(4)
        assert len(scene.issuer.bodies) == 4
    finally:
        held.release()


def test_a_provider_that_is_down_is_asked_about_a_few_users_and_never_about_all(scene: Scene) -> None:
    scene.sign_in(*users(20))
    scene.fails = dict.fromkeys(users(20), AWAY)
    assert 5 <= scene.confirm() <= 8  # three are under way when the fifth fails
    assert scene.confirmed() == set()

    scene.fails = {}
    scene.confirm()
    assert len(scene.confirmed()) >= 12, "the others are asked about again two minutes later"


def test_users_who_cannot_be_confirmed_keep_no_others_waiting(scene: Scene) -> None:
    scene.sign_in(*users(12))
    scene.fails = dict.fromkeys(users(10), UNCLEAR)
    assert scene.confirm() == 12
    assert scene.confirmed() == {"user10", "user11"}

    scene.sign_in("new")
    later = datetime.now(UTC) + timedelta(minutes=5)
    claimed = sign_ins.claim_due(scene.registry.catalog, scene.issuer.url, later)
    assert claimed is not None and claimed.subject == "new", "those who failed come last"


def test_after_a_slow_failure_sign_ins_are_refused_at_once_for_15_seconds(scene: Scene) -> None:
    scene.fails = {"ann": AWAY}
    with pytest.raises(Unavailable, match="returned status 503"):
        scene.sign_in("ann")
    for _ in range(3):
        with pytest.raises(Unavailable, match="sign in again in a moment"):
            scene.sign_in("bob")
    assert len(scene.issuer.bodies) == 1
    scene.passed = 15
    scene.sign_in("bob")
