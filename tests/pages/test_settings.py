"""The settings pages: who sees which section, forms, secrets that are shown once, dry runs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.pages.browser import Browser
from tests.pages.sample_registry import TONE

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.registry.access import MemberChange
from adaptry.registry.audit_log import AuditFilter
from adaptry.testing.receivers import receiving
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

if TYPE_CHECKING:
    from adaptry.testing.postgres import PostgresServer

ACME = "/-/settings/namespaces/acme"
MEMBERS, ACCOUNTS, WEBHOOKS, LIMITS = (
    f"{ACME}/{part}" for part in ("members", "service-accounts", "webhooks", "limits")
)
TOKENS = "/-/settings/tokens"
PUBLISHERS = "/-/settings/adapters/acme/tone/publishers"
SECRET = re.compile(r"(?:adr_|whsec_)[A-Za-z0-9_+/=-]{20,}")


@pytest.fixture(params=["embedded", pytest.param("postgres", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, start: Callable[..., Server]) -> Server:
    """An empty server, once embedded and once on PostgreSQL."""
    if request.param == "embedded":
        return start()
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return start(catalog=postgres.database())


@pytest.fixture
def people(server: Server) -> Server:
    """A server with the users mia, who owns acme, and tom, who may read it."""
    registry = server.registry()
    for name, role in (("mia", "owner"), ("tom", "viewer")):
        registry.principals.create("user", name)
        registry.grants.set_member("acme", MemberChange.model_validate({"principal": name, "role": role}))
    return server


def test_members_are_added_get_another_role_and_are_removed(people: Server) -> None:
    browser = Browser(people)
    people.registry().principals.create("user", "lena")
    for role in ("viewer", "maintainer"):
        sent = {"do": "set", "kind": "principal", "who": "lena", "role": role}
        answer = browser.post(MEMBERS, sent)
        assert (answer.status, answer.headers["Location"]) == (303, f"{MEMBERS}?done=set")
        assert "The role is set." in browser.get(answer.headers["Location"]).body.decode()
        assert _roles(people)["lena"] == role
    asked = browser.get(f"{MEMBERS}?confirm=remove&who=lena&kind=principal").body.decode()
    assert "Remove lena from the members?" in asked
    browser.post(MEMBERS, {"do": "remove", "who": "lena", "kind": "principal"})
    assert "lena" not in _roles(people)


def _roles(server: Server) -> dict[str | None, str]:
    return {one.principal: one.permission for one in server.registry().grants.members("acme").members}


def test_a_new_token_works_and_its_secret_is_on_no_later_page(server: Server) -> None:
    browser = Browser(server)
    answer = browser.post(TOKENS, {"do": "create", "name": "laptop", "days": "30", "permission": "viewer"})
    assert answer.headers["Cache-Control"] == "private, no-store"
    secret = SECRET.search(answer.body.decode())
    assert secret
    assert server.call("GET", "/api/v1/whoami", token=secret[0]).status == 200
    later = browser.get(TOKENS).body.decode()
    assert "laptop" in later
    assert secret[0] not in later + browser.get(f"{TOKENS}?format=json").body.decode()
    (made,) = (one for one in server.registry().tokens.list().items if one.name == "laptop")
    assert browser.post(TOKENS, {"do": "revoke", "id": str(made.id)}).status == 303
    (made,) = (one for one in server.registry().tokens.list().items if one.name == "laptop")
    assert made.revoked_at is not None


def test_an_error_is_shown_beside_its_form_which_keeps_its_fields(server: Server) -> None:
    sent = {"do": "create", "name": 'a"><b>', "days": "soon", "resources": "acme"}
    answer = Browser(server).post(TOKENS, sent)
    assert answer.status == 400
    text = answer.body.decode()
    form = text[text.index('id="create"') : text.index("</form>", text.index('id="create"'))]
    assert "days: not a number" in form
    assert 'value="a&#34;&gt;&lt;b&gt;"' in form
    assert 'value="soon"' in form
    assert 'value="acme"' in form


@pytest.mark.parametrize(
    ("address", "fields", "says"),
    [
        (TOKENS, {"do": "create", "name": "", "days": "3"}, "fill in"),
        (TOKENS, {"do": "create", "name": "x", "days": "-1"}, "days"),
        (TOKENS, {"do": "create", "name": "x", "days": "nan"}, "days"),
        (TOKENS, {"do": "create", "name": "x", "days": "9", "permission": "king"}, "king"),
        (TOKENS, {"do": "revoke", "id": "9" * 40}, "no such entry"),
        (TOKENS, {"do": "revoke", "id": "77"}, "77"),
        (TOKENS, {"do": "explode"}, "no action"),
        (MEMBERS, {"do": "set", "who": "nobody", "role": "viewer"}, "nobody"),
        (MEMBERS, {"do": "set", "who": "root", "role": "king"}, "role"),
        (MEMBERS, {"do": "set", "who": "root", "role": "viewer", "kind": "cat"}, "group"),
        (MEMBERS, {"do": "grant", "who": "root", "permission": "push", "resource": "a/b/c"}, "resource"),
        (MEMBERS, {"do": "take-back", "id": "abc"}, "no such entry"),
        (ACCOUNTS, {"do": "create", "name": "../x"}, "x"),
        (ACCOUNTS, {"do": "disable", "account": "other/ci"}, "not a service account of acme"),
        (WEBHOOKS, {"do": "add", "url": "ftp://x"}, "ftp"),
        (WEBHOOKS, {"do": "add", "url": "https://example.org/x", "kinds": "A B"}, "kinds"),
        (LIMITS, {"do": "set", "bytes": "lots"}, "lots"),
        (LIMITS, {"do": "set", "versions": "1e3"}, "versions"),
        (PUBLISHERS, {"do": "add", "issuer": "github"}, "project"),
        (PUBLISHERS, {"do": "remove", "id": "1"}, "1"),
        (f"{ACME}/policies", {"do": "set", "text": "alias: ["}, "line"),
        (f"{ACME}/policies", {"do": "set", "text": ""}, "write the policy"),
        (f"{ACME}/policies", {"do": "try", "version": "other/tone@1", "alias": "prod"}, "not in acme"),
        ("/-/settings/groups", {"do": "add", "group": "none", "principal": "root"}, "none"),
        ("/-/settings/users", {"do": "disable", "name": "root"}, "administrator left"),
        ("/-/settings/users", {"do": "invite", "name": "a b", "hours": "2"}, "a b"),
        ("/-/settings/issuers", {"do": "add", "name": "x", "url": "http//", "kind": "github"}, "audience"),
    ],
)
def test_bad_input_is_explained_and_changes_nothing(
    shared: Browser, address: str, fields: dict[str, str], says: str
) -> None:
    before = _last_change(shared.server)
    answer = shared.post(address, fields)
    assert 400 <= answer.status < 500
    assert says in answer.body.decode().split("<main", 1)[1]
    assert _last_change(shared.server) == before


def _last_change(server: Server) -> tuple[object, ...]:
    (found,) = server.registry().audit.list(AuditFilter(denied=False), None, 1).items
    return found.at, found.action, found.what


@pytest.fixture(scope="module")
def shared(embedded_team: Server) -> Browser:
    """A shared server, for requests that change nothing."""
    return Browser(embedded_team)


def test_a_viewer_sees_no_section_that_they_may_not_use_and_changes_nothing(people: Server) -> None:
    tom = Browser(people, people.token("tom", "viewer", ("acme",)))
    text = tom.get(MEMBERS).body.decode()
    assert "mia" in text
    nav = text[
        text.index('aria-label="Settings"') : text.index("</nav>", text.index('aria-label="Settings"'))
    ]
    for hidden in ("Service accounts", "Webhooks", "Users", "Groups", "Trusted issuers"):
        assert hidden not in nav
    assert "Add a member" not in text
    assert "Other grants" not in text
    assert tom.post(MEMBERS, {"do": "set", "who": "tom", "role": "owner"}).status == 403
    assert _roles(people)["tom"] == "viewer"
    for hidden in (WEBHOOKS, ACCOUNTS, PUBLISHERS, "/-/settings/namespaces/other/members"):
        assert tom.get(hidden).status in (403, 404), hidden
    assert b"mia" not in tom.get("/-/settings/users").body
    assert "Limits" not in tom.get("/-/settings").body.decode()


def test_an_owner_manages_a_namespace_and_nothing_of_the_registry(people: Server) -> None:
    mia = Browser(people, people.token("mia", "owner", ("acme",)))
    assert mia.post(ACCOUNTS, {"do": "create", "name": "ci"}).status == 303
    answer = mia.post(ACCOUNTS, {"do": "create-token", "account": "acme/ci", "name": "nightly", "days": "7"})
    assert SECRET.search(answer.body.decode())
    assert not SECRET.search(mia.get(ACCOUNTS).body.decode())
    assert mia.post(LIMITS, {"do": "set", "bytes": "1GB"}).status == 403
    assert "Set the limits" not in mia.get(LIMITS).body.decode()
    assert mia.post("/-/settings/issuers", {"do": "add", "name": "x"}).status in (400, 403)
    assert mia.post("/-/settings/groups", {"do": "create", "name": "all"}).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
def test_a_form_of_another_site_changes_nothing(people: Server, origin: str) -> None:
    browser = Browser(people)
    sent = {"do": "set", "kind": "principal", "who": "tom", "role": "owner"}
    answer = browser.post(MEMBERS, sent, Origin=origin, Sec_Fetch_Site="cross-site" if origin else "")
    assert answer.status == 403
    assert _roles(people)["tom"] == "viewer"


def test_limits_are_set_and_removed_by_administrators(server: Server) -> None:
    browser = Browser(server)
    assert browser.post(LIMITS, {"do": "set", "bytes": "20GB", "versions": "100"}).status == 303
    (found,) = browser.get(f"{LIMITS}?format=json").json["quotas"]
    assert (found["bytes"], found["versions"], found["own"]) == (20 * 10**9, 100, ["bytes", "versions"])
    assert "20.0 GB" in browser.get(LIMITS).body.decode()
    assert browser.post(LIMITS, {"do": "remove"}).status == 303
    assert browser.get(f"{LIMITS}?format=json").json["quotas"][0]["own"] == []


def test_issuers_and_publishers_are_added_and_removed(server: Server) -> None:
    browser = Browser(server)
    issuer = {"name": "github", "url": "https://token.example.org", "kind": "github", "audience": "us"}
    assert browser.post("/-/settings/issuers", {"do": "add", **issuer}).status == 303
    sent = {
        "do": "add",
        "issuer": "github",
        "project_id": "7",
        "owner_id": "9",
        "workflow": ".github/workflows/release.yml",
    }
    answer = browser.post(PUBLISHERS, sent)
    assert answer.status == 400
    assert "name an environment, a branch, or both" in answer.body.decode()
    assert browser.post(PUBLISHERS, {**sent, "branch": "main"}).status == 303
    (found,) = browser.get(f"{PUBLISHERS}?format=json").json["publishers"]
    assert found["branch"] == "main"
    in_use = browser.post("/-/settings/issuers", {"do": "remove", "name": "github"})
    assert in_use.status == 409
    assert browser.post(PUBLISHERS, {"do": "remove", "id": str(found["id"])}).status == 303
    assert browser.post("/-/settings/issuers", {"do": "remove", "name": "github"}).status == 303


def test_users_are_invited_disabled_and_enabled_and_put_into_groups(server: Server) -> None:
    browser, users, groups = Browser(server), "/-/settings/users", "/-/settings/groups"
    answer = browser.post(users, {"do": "invite", "name": "mia", "hours": "5"})
    assert "it will not be shown again" in answer.body.decode()
    for do, word in (("disable", "disabled"), ("enable", "enabled")):
        assert browser.post(users, {"do": do, "name": "mia"}).status == 303
        (mia,) = (one for one in server.registry().principals.list().items if one.name == "mia")
        assert (mia.disabled_at is not None) == (word == "disabled")
    for sent in (
        {"do": "create", "name": "release"},
        {"do": "add", "group": "release", "principal": "mia"},
    ):
        assert browser.post(groups, sent).status == 303
    assert server.registry().principals.groups().items[0].members == ("mia",)
    assert browser.post(groups, {"do": "remove", "group": "release", "principal": "mia"}).status == 303
    assert server.registry().principals.groups().items[0].members == ()
    assert browser.post(groups, {"do": "delete", "group": "release"}).status == 303
    assert server.registry().principals.groups().items == ()


def test_a_policy_is_tried_before_it_is_set_and_moves_nothing(server: Server, tmp_path: Path) -> None:
    browser, here = Browser(server), "/-/settings/adapters/acme/tone/policies"
    push(server.registry(), open_dir(tiny_lora(tmp_path / "tone")), "acme/tone")
    text = 'alias: prod\nrequire:\n  - metric("accuracy") >= 0.9\n  - state() == "active"\n'
    tried = browser.post(here, {"do": "try", "text": text, "version": "1", "alias": "prod"}).body.decode()
    assert "would not move" in tried
    assert "unknown" in tried
    assert "met" in tried
    assert "&gt;= 0.9" in tried[tried.index("<textarea") :]
    assert server.registry().policies.list() == ()
    assert browser.post(here, {"do": "set", "text": text}).status == 303
    assert server.registry().policies.list()[0].text == text
    assert "version 1" in browser.get(f"{here}?history=prod").body.decode()
    assert browser.post(here, {"do": "remove", "alias": "prod"}).status == 303
    assert server.registry().policies.list() == ()


def test_a_policy_in_force_that_names_an_unknown_group_has_a_warning(server: Server) -> None:
    browser, text = Browser(server), "alias: prod\nrequire:\n- approvals('relaese') >= 1\n"
    answer = browser.post(f"{ACME}/policies", {"do": "set", "text": text})
    shown = answer.body.decode()
    assert answer.status == 200
    assert "The policy is in force." in shown
    assert "there is no group relaese" in shown
    assert server.registry().policies.list()[0].text == text


def test_every_section_is_json_and_csv_without_secrets(team: Server) -> None:
    browser = Browser(team)
    for part in ("members", "service-accounts", "policies", "webhooks", "webhooks/1", "limits"):
        _check_tables(browser, f"{ACME}/{part}")
    for part in ("tokens", "users", "groups", "issuers", "limits"):
        _check_tables(browser, f"/-/settings/{part}")
    for part in ("policies", "publishers"):
        _check_tables(browser, f"/-/settings/adapters/{TONE}/{part}")


def _check_tables(browser: Browser, address: str) -> None:
    as_json, as_csv = (browser.get(f"{address}?format={form}") for form in ("json", "csv"))
    assert as_json.headers["Content-Type"] == "application/json", address
    assert as_json.json, address
    assert as_csv.headers["Content-Type"] == "text/csv; charset=utf-8", address
    assert next(csv.reader(io.StringIO(as_csv.body.decode()))), address
    assert not SECRET.search((as_json.body + as_csv.body).decode()), address


def test_a_confirmation_names_only_existing_things(team: Server) -> None:
    browser = Browser(team)
    assert "<dialog class" not in browser.get(f"{TOKENS}?confirm=revoke&id=999").body.decode()
    assert "<dialog class" not in browser.get(f"{TOKENS}?confirm=create&name=x").body.decode()
    made = browser.get(f"{TOKENS}?format=json").json["tokens"][0]
    asked = browser.get(f"{TOKENS}?confirm=revoke&id={made['id']}").body.decode()
    assert f"Revoke the token {made['name']} of {made['principal']}?" in asked


def test_a_confirmation_performs_only_the_action_that_it_names(people: Server) -> None:
    browser = Browser(people)
    grant = "do=grant&permission=admin&resource=*&role=owner&id=1"
    asked = browser.get(f"{MEMBERS}?{grant}&confirm=remove&who=tom&kind=principal")
    assert _sent(asked.body.decode()) == {"do": "remove", "who": "tom", "kind": "principal"}
    token = browser.get(f"{TOKENS}?format=json").json["tokens"][0]["id"]
    asked = browser.get(f"{TOKENS}?do=create&name=x&days=30&confirm=revoke&id={token}")
    assert _sent(asked.body.decode()) == {"do": "revoke", "id": str(token)}


def test_a_confirmation_distinguishes_a_user_and_a_group_of_one_name(people: Server) -> None:
    browser, registry = Browser(people), people.registry()
    registry.principals.create_group("tom")
    registry.grants.set_member("acme", MemberChange(group="tom", role="viewer"))
    for kind, what in (("principal", "Remove tom from"), ("group", "Remove group tom from")):
        asked = browser.get(f"{MEMBERS}?confirm=remove&who=tom&kind={kind}").body.decode()
        assert what in asked
        assert _sent(asked) == {"do": "remove", "who": "tom", "kind": kind}
    assert "<dialog class" not in browser.get(f"{MEMBERS}?confirm=remove&who=mia&kind=group").body.decode()


def _sent(page: str) -> dict[str, str]:
    """The data that the form of the page's dialog sends; for several values of a field, the first."""
    dialog = page.partition("<dialog class")[2].partition("</dialog>")[0]
    found = re.findall(r'<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"', dialog)
    return dict(reversed(found))


@pytest.mark.slow
def test_a_webhook_is_added_tested_and_its_message_sent_again(start: Callable[..., Server]) -> None:
    server = start(allow_outgoing=("127.0.0.0/8",))
    browser = Browser(server)
    with receiving() as receiver:
        answer = browser.post(WEBHOOKS, {"do": "add", "url": receiver.url, "kinds": "alias.moved"})
        assert SECRET.search(answer.body.decode())
        here = f"{WEBHOOKS}/1"
        assert browser.post(here, {"do": "test"}).status == 303
        (first,) = receiver.wait_for(1)
        assert browser.post(here, {"do": "redeliver", "message": first.id}).status == 303
        assert [one.id for one in receiver.wait_for(2)] == [first.id, first.id]
    assert "webhook.tested" in browser.get(here).body.decode()
    rotated = browser.post(here, {"do": "rotate", "hours": "2"}).body.decode()
    assert SECRET.search(rotated)
    assert not SECRET.search(browser.get(here).body.decode())
    assert browser.post(here, {"do": "disable"}).status == 303
    assert browser.get(f"{here}?format=json").json["webhook"]["disabled_at"]
    assert browser.get("/-/settings/namespaces/other/webhooks/1").status == 404
    gone = browser.post(here, {"do": "remove"})
    assert (gone.status, gone.headers["Location"]) == (303, f"{WEBHOOKS}?done=remove")
    assert browser.get(here).status == 404
