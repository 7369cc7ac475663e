"""Users of an identity provider who are linked to users here: they are listed in pages, and only some may be
linked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.registry.pagination import iter_items
from adaptry.registry.sso import ExternalUserRequest
from adaptry.storage.catalog import principals, sign_ins
from adaptry_api.settings import SsoSettings
from adaptry_api.testing import Server
from adaptry_cli.main import main

ISSUER = "https://login.example.com"


def link(server: Server, user: str, subject: str, issuer: str = ISSUER, token: str | None = None) -> None:
    request = ExternalUserRequest(user=user, issuer=issuer, subject=subject)
    server.registry(token).sso.link_user(request)


def test_pages_of_users_have_each_once_in_name_order_also_those_with_several_subjects(
    start: Callable[..., Server],
) -> None:
    server = start(sso=SsoSettings(ISSUER, "adaptry"))
    for name in ("zoe", "ann", "bob"):
        server.token(name, "viewer", ("acme",))
    linked = [("ann", "1"), ("ann", "2"), ("ann", "3"), ("bob", "4"), ("zoe", "5")]
    for user, subject in reversed(linked):
        link(server, user, subject)
    sso = server.registry().sso
    pages = list(iter_items(lambda cursor: sso.list_users(cursor, 2)))
    assert [one.user for one in pages] == [user for user, _ in linked]
    assert {(one.user, one.subject) for one in pages} == set(linked)
    assert (len(sso.list_users(limit=2).items), sso.list_users(limit=5).next) == (2, None)
    for cursor in ("nonsense", server.registry().principals.list(limit=1).next):
        with pytest.raises(Invalid, match="does not belong to this listing"):
            sso.list_users(cursor)


@pytest.mark.slow
def test_the_command_line_lists_more_users_than_a_page_has(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(sso=SsoSettings(ISSUER, "adaptry"))
    server.token("ann", "viewer", ("acme",))
    with server.catalog.write() as tx:
        found = principals.find(tx, "ann")
        assert found is not None
        for number in range(203):
            sign_ins.insert_external(tx, ISSUER, str(number), found.key, datetime.now(UTC), "root")
    monkeypatch.setenv("ADAPTRY_URL", server.url)
    monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
    shown = CliRunner().invoke(main, ["sso", "users"]).stdout
    assert shown.count(ISSUER) == 203


def test_only_users_of_the_servers_provider_are_linked(start: Callable[..., Server]) -> None:
    server = start(sso=SsoSettings(ISSUER, "adaptry"))
    viewer = server.token("ann", "viewer", ("acme",))
    for other in (f"{ISSUER}/", "https://login.example.org"):
        with pytest.raises(Invalid, match=f"not the server's identity provider; its issuer is {ISSUER}$"):
            link(server, "ann", "1", other)
    with pytest.raises(PermissionDenied, match="link ann") as denied:
        link(server, "ann", "1", "https://login.example.org", viewer)
    assert ISSUER not in denied.value.message
    link(server, "ann", "1")


def test_users_are_not_linked_by_a_server_that_has_no_provider(server: Server) -> None:
    server.token("ann", "viewer", ("acme",))
    with pytest.raises(Invalid, match="start it with --sso-issuer"):
        link(server, "ann", "1")
