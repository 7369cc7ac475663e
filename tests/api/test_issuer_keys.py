"""How often the keys of a provider are fetched if it fails, slowly or at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey

from adaptry.core.errors import Unavailable
from adaptry.core.outgoing_requests.addresses import parse_network
from adaptry.core.outgoing_requests.connector import GuardedConnector
from adaptry_api.oauth.issuer_keys import IssuerKeys

from .local_issuer import LocalIssuer, rsa_key, running_issuer


class Scene:
    """A provider, a server's memory of its keys, and a clock, on which each request takes `seconds`."""

    def __init__(self, issuer: LocalIssuer, seconds: float = 0.0) -> None:
        self.issuer, self.seconds, self.passed = issuer, seconds, 0.0
        self.keys = IssuerKeys(GuardedConnector((parse_network("127.0.0.0/8"),)), self.clock)

    def clock(self) -> float:
        return self.passed + self.seconds * len(self.issuer.requests)

    def requests(self) -> int:
        """The number of requests for the keys."""
        before = len(self.issuer.requests)
        with suppress(Unavailable):
            self.keys.keys_of(self.issuer.url, None)
        return len(self.issuer.requests) - before


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with running_issuer() as running:
        yield running


def test_after_a_slow_failure_callers_fail_immediately_for_15_seconds(
    issuer: LocalIssuer,
) -> None:
    issuer.is_away, scene = True, Scene(issuer, seconds=2.0)
    assert scene.requests() == 1
    for _ in range(5):
        with pytest.raises(Unavailable, match="try again in a moment"):
            scene.keys.keys_of(issuer.url, None)
    assert len(issuer.requests) == 1
    scene.passed += 15
    issuer.is_away = False
    assert scene.keys.keys_of(issuer.url, issuer.key.kid).keys


@pytest.mark.filterwarnings("ignore:Key size should be")
def test_keys_that_are_weak_or_not_for_signatures_are_not_used(issuer: LocalIssuer) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for key in (
        RSAKey.import_key(weak, {"kid": "weak", "use": "sig"}),
        RSAKey.import_key(rsa_key("first").as_dict(private=False) | {"kid": "other", "use": "enc"}),
    ):
        issuer.published = [key]
        with pytest.raises(Unavailable, match="no RSA or P-256 key"):
            Scene(issuer).keys.keys_of(issuer.url, None)
        issuer.published = [key, rsa_key("first")]
        assert [one.kid for one in Scene(issuer).keys.keys_of(issuer.url, None).keys] == ["first"]


def test_after_a_failure_at_once_the_next_caller_tries_again(issuer: LocalIssuer) -> None:
    issuer.is_away, scene = True, Scene(issuer)
    assert [scene.requests() for _ in range(3)] == [1, 1, 1]


def test_a_slow_failure_delays_no_caller_while_the_last_keys_are_usable(issuer: LocalIssuer) -> None:
    scene = Scene(issuer)
    assert scene.requests() == 2
    issuer.is_away, scene.seconds, scene.passed = True, 2.0, 700.0
    assert scene.requests() == 1, "the keys are ten minutes old"
    assert scene.requests() == 0
    assert scene.keys.keys_of(issuer.url, issuer.key.kid).keys
    scene.passed += 3600
    assert scene.requests() == 1, "keys that are older than an hour are not used"
    with pytest.raises(Unavailable):
        scene.keys.keys_of(issuer.url, None)
