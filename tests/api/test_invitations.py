"""Invitations: a code that becomes a user's first token, once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from adaptry.core.errors import Unauthenticated
from adaptry.registry.access import InvitationRequest
from adaptry.storage import invitations
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry_api.testing import Server, assert_problem

INVITE, ACCEPT = "/api/v1/invitations", "/api/v1/invitations/accept"


def invite(server: Server, name: str = "ann") -> str:
    answer = server.call("POST", INVITE, {"name": name})
    assert answer.status == 201
    return str(answer.json["code"])


def test_an_invitation_is_exchanged_for_a_token_of_its_user_once(server: Server) -> None:
    code = invite(server)
    accepted = server.call("POST", ACCEPT, {"code": code}, token=None)
    assert (accepted.status, accepted.json["principal"]) == (201, "ann")
    assert server.call("GET", "/api/v1/whoami", token=accepted.json["secret"]).json["identity"] == "ann"
    again = server.call("POST", ACCEPT, {"code": code}, token=None)
    unknown = server.call("POST", ACCEPT, {"code": "adr_inv_nothing"}, token=None)
    assert_problem(again, 401, "unauthenticated")
    assert again.json["detail"] == unknown.json["detail"]
    assert_problem(server.call("GET", "/api/v1/whoami", token=code), 401, "unauthenticated")


def test_one_of_many_concurrent_uses_of_a_code_gets_a_token(server: Server) -> None:
    code = invite(server)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.call("POST", ACCEPT, {"code": code}, token=None), range(16)))
    assert sorted(answer.status for answer in answers) == [201] + [401] * 15


def test_a_new_invitation_replaces_the_one_before(server: Server) -> None:
    first, second = invite(server), invite(server)
    assert server.call("POST", ACCEPT, {"code": first}, token=None).status == 401
    assert server.call("POST", ACCEPT, {"code": second}, token=None).status == 201


def test_the_code_is_not_stored(server: Server) -> None:
    code = invite(server)
    with closing(sqlite3.connect(server.data / "catalog.sqlite")) as database:
        assert code not in "\n".join(database.iterdump())


def test_only_administrators_invite_and_only_users_are_invited(server: Server) -> None:
    owner = server.token("olga", "admin", ("acme",))
    assert_problem(server.call("POST", INVITE, {"name": "ann"}, token=owner), 403, "denied")
    server.token("gpu", "worker", ("acme",))
    assert_problem(server.call("POST", INVITE, {"name": "gpu"}), 400, "invalid")
    assert_problem(server.call("POST", INVITE, {"name": "no such name"}), 400, "invalid")
    server.call("PATCH", "/api/v1/principals", {"name": "olga", "is_disabled": True})
    assert_problem(server.call("POST", INVITE, {"name": "olga"}), 409, "conflict")


def test_an_invitation_ends_with_its_time_and_with_its_user() -> None:
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))
    now = datetime.now(UTC)
    late = registry.principals.invite(InvitationRequest(name="ann", hours=1))
    with pytest.raises(Unauthenticated):
        invitations.accept(registry.catalog, late.code, "login", now + timedelta(hours=1, minutes=1))
    barred = registry.principals.invite(InvitationRequest(name="bob", hours=1))
    registry.principals.set_disabled("bob", True)
    with pytest.raises(Unauthenticated):
        invitations.accept(registry.catalog, barred.code, "login")
    registry.principals.set_disabled("bob", False)
    assert invitations.accept(registry.catalog, barred.code, "login").principal == "bob"
    registry.close()
