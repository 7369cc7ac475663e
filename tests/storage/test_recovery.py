"""Recovering access to a registry that has no administrator left."""

from __future__ import annotations

import pytest

from adaptry.core.errors import Conflict, InvalidRef
from adaptry.core.refs import AdapterName
from adaptry.storage import tokens
from adaptry.storage.connect import open_in_memory
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.storage.maintenance.recovery import recover_access


@pytest.fixture
def registry() -> LocalRegistry:
    return open_in_memory()


def test_recovery_enables_an_administrator_with_a_new_token_and_an_event(registry: LocalRegistry) -> None:
    old = tokens.create_token(registry.catalog, "root", "admin", ("*",))
    tokens.create_token(registry.catalog, "other", "admin", ("*",))
    registry.principals.set_disabled("root", True)

    created = recover_access(registry, "root")

    for secret in (old, created.secret):
        assert tokens.identify(registry.catalog, secret).may_administer
    assert created.expires_at is not None
    (event,) = [
        one for one in registry.events.read(after=0, limit=50).items if one.kind == "access.recovered"
    ]
    assert event.detail == {"user": "root", "permission": "admin", "resource": "*"}
    assert verify(registry.catalog, registry.blobs) == ()


def test_an_owner_of_one_namespace_is_restored_and_nothing_else(registry: LocalRegistry) -> None:
    olga = tokens.identify(registry.catalog, recover_access(registry, "olga", "acme").secret)

    assert olga.may("member.manage", AdapterName.parse("acme/tone"))
    assert not olga.may_administer
    assert not olga.has_namespace("evil")


def test_only_users_are_given_access_and_only_to_namespaces(registry: LocalRegistry) -> None:
    registry.principals.create("service-account", "acme/ci")

    with pytest.raises(Conflict, match="service-account"):
        recover_access(registry, "acme/ci")
    with pytest.raises(InvalidRef):
        recover_access(registry, "olga", "*")
    assert registry.principals.list(kinds=("user",)).items == ()
