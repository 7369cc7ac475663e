"""Administration of users, groups, members, grants and tokens over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied, Unauthenticated
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.access import AccessQuery, GrantRequest, MemberChange, TokenRequest
from adaptry.registry.http import HttpRegistry
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage import tokens
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora
from adaptry_api.auth import TokenAuthenticator
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, assert_problem, running_server

TONE = AdapterName.parse("acme/tone")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, with acme/tone@prod; each test has its own users."""
    folder = tmp_path_factory.mktemp("people")
    with (
        ExitStack() as at_the_end,
        running_server(ServerSettings(data=folder / "data"), at_the_end.callback) as one,
    ):
        push(
            one.registry(),
            open_dir(tiny_lora(folder / "lora")),
            "acme/tone",
            options=PushOptions(alias="prod"),
        )
        yield one


def new_user(server: Server, name: str, **roles: str) -> HttpRegistry:
    """The client of a new user with roles in namespaces and an unlimited token."""
    root = server.registry()
    root.principals.create("user", name)
    for namespace, role in roles.items():
        root.grants.set_member(namespace, MemberChange.model_validate({"principal": name, "role": role}))
    return server.registry(root.tokens.create(TokenRequest(name="laptop", principal=name)).secret)


def test_a_removed_member_loses_access_immediately(server: Server) -> None:
    theirs = new_user(server, "mia", acme="maintainer")
    assert theirs.aliases.list(TONE)[0].alias == "prod"

    server.registry().grants.set_member("acme", MemberChange(principal="mia", role=None))

    with pytest.raises(NotFound, match="no adapter acme/tone"):
        theirs.aliases.list(TONE)
    with pytest.raises(NotFound, match="is not a member of"):
        server.registry().grants.set_member("acme", MemberChange(principal="mia", role=None))


def test_a_role_allows_what_the_table_says(server: Server) -> None:
    digest = server.registry().aliases.list(TONE)[0].digest
    viewer, contributor = new_user(server, "vic", acme="viewer"), new_user(server, "cora", acme="contributor")
    maintainer = new_user(server, "matt", acme="maintainer")

    with pytest.raises(PermissionDenied, match=r"push.*no grant allows push on acme/tone"):
        viewer.adapters.edit(TONE, AdapterEdit(description="mine"))
    contributor.adapters.edit(TONE, AdapterEdit(description="ours"))
    for change in (AdapterEdit(visibility="public"), AdapterEdit(visibility="public", description="x")):
        with pytest.raises(PermissionDenied, match=r"state\.set"):
            contributor.adapters.edit(TONE, change)
    with pytest.raises(PermissionDenied, match=r"alias\.move"):
        contributor.aliases.move(TONE, "stage", digest, None)
    maintainer.aliases.move(TONE, "stage", digest, None)
    maintainer.aliases.remove(TONE, "stage", 1)
    with pytest.raises(PermissionDenied, match="may not grant"):
        maintainer.grants.add(GrantRequest(principal="vic", permission="viewer", resource="acme"))


def test_a_push_that_moves_an_alias_requires_the_right_to_move_it(server: Server, tmp_path: Path) -> None:
    contributor = new_user(server, "carl", acme="contributor")
    lora = open_dir(tiny_lora(tmp_path / "other", seed=9))

    with pytest.raises(PermissionDenied, match=r"alias\.move"):
        push(contributor, lora, "acme/voice", options=PushOptions(alias="prod"))
    push(contributor, lora, "acme/voice")


def test_every_alias_but_prod_may_be_moved_by_one_grant(server: Server) -> None:
    root = server.registry()
    digest = root.aliases.list(TONE)[0].digest
    theirs = new_user(server, "ally", acme="viewer")
    added = root.grants.add(
        GrantRequest(principal="ally", permission="alias.move", resource="acme", conditions=("alias!=prod",))
    )

    theirs.aliases.move(TONE, "canary", digest, None)
    with pytest.raises(PermissionDenied, match="a condition does not hold"):
        theirs.aliases.remove(TONE, "prod", 1)
    refused = theirs.grants.explain(AccessQuery(principal="ally", action="alias.move", ref="acme/tone@prod"))
    assert (refused.is_allowed, refused.grant) == (False, added.id)
    root.grants.remove(added.id)
    with pytest.raises(PermissionDenied):
        theirs.aliases.remove(TONE, "canary", 1)
    root.aliases.remove(TONE, "canary", 1)


def test_a_state_that_a_grant_leaves_out_cannot_be_set(server: Server) -> None:
    root = server.registry()
    theirs = new_user(server, "stan", acme="viewer")
    root.grants.add(
        GrantRequest(
            principal="stan", permission="state.set", resource="acme", conditions=("state!=revoked",)
        )
    )
    seen = root.aliases.list(TONE)[0]

    with pytest.raises(PermissionDenied, match="state!=revoked"):
        theirs.versions.set_state(TONE, seen.digest, StateChange(state="revoked", reason="it leaks"), 0)


def test_an_owner_runs_a_namespace_without_an_administrator(server: Server) -> None:
    owner = new_user(server, "olga", acme="owner")
    new_user(server, "newt")

    assert owner.principals.create("service-account", "acme/ci").namespace == "acme"
    owner.grants.set_member("acme", MemberChange(principal="acme/ci", role="contributor"))
    made = owner.tokens.create(TokenRequest(name="pipeline", principal="acme/ci", permissions=("push",)))
    machine = server.registry(made.secret)
    assert machine.about().identity == "acme/ci"
    machine.adapters.edit(TONE, AdapterEdit(description="by a machine"))
    narrowed = machine.grants.explain(AccessQuery(principal="acme/ci", action="job.run", ref="acme"))
    assert (narrowed.is_allowed, narrowed.reason) == (False, "the token does not allow job.run on acme")
    with pytest.raises(PermissionDenied, match="for acme only"):
        owner.tokens.create(TokenRequest(name="wide", principal="acme/ci", resources=("*",)))
    members = owner.grants.set_member("acme", MemberChange(principal="newt", role="viewer"))
    assert "newt" in [one.principal for one in members.members]
    assert owner.grants.set_accountable("acme", "newt").accountable == "newt"
    for refused in ("evil", "acme-2"):
        with pytest.raises(PermissionDenied):
            owner.grants.set_member(refused, MemberChange(principal="newt", role="viewer"))
        with pytest.raises(PermissionDenied):
            owner.principals.create("service-account", f"{refused}/ci")
    with pytest.raises(PermissionDenied):
        owner.grants.add(GrantRequest(principal="olga", permission="admin", resource="*"))
    with pytest.raises(PermissionDenied):
        owner.tokens.create(TokenRequest(name="x", principal="newt"))
    listed = {one.principal for one in owner.tokens.list().items}
    assert "acme/ci" in listed
    assert {name for name in listed if not name.startswith("acme/")} == {"olga"}
    owner.tokens.revoke(made.id)
    with pytest.raises(Unauthenticated):
        machine.about()


def test_an_owner_of_a_glob_sees_the_service_accounts_that_they_manage(server: Server) -> None:
    root = server.registry()
    for robot in ("team-a/ci", "rivals/ci"):
        root.principals.create("service-account", robot)
    for name, glob in (("gwyn", "team-*"), ("gus", "team-[ab]"), ("gwen", "team-?")):
        theirs = new_user(server, name)
        root.grants.add(GrantRequest(principal=name, permission="owner", resource=glob))
        assert [one.name for one in theirs.principals.list().items] == [name, "team-a/ci"]


def test_an_owner_gains_nothing_by_what_a_service_account_is_granted_elsewhere(server: Server) -> None:
    root, owner = server.registry(), new_user(server, "otto", acme="owner")
    owner.principals.create("service-account", "acme/robot")
    root.grants.add(GrantRequest(principal="acme/robot", permission="admin", resource="*"))

    machine = server.registry(owner.tokens.create(TokenRequest(name="x", principal="acme/robot")).secret)

    assert machine.adapters.get(TONE).name == TONE
    with pytest.raises(PermissionDenied):
        machine.principals.create("user", "mallory")
    with pytest.raises(PermissionDenied):
        machine.grants.set_member("evil", MemberChange(principal="otto", role="owner"))
    root.principals.set_disabled("acme/robot", True)


def test_principals_cannot_be_discovered_by_trying(server: Server) -> None:
    server.registry().principals.create("service-account", "evil/ci")
    theirs = new_user(server, "trudy", acme="owner")

    def refusal(name: str) -> list[str]:
        said = []
        for call in (
            lambda: theirs.principals.set_disabled(name, True),
            lambda: theirs.tokens.create(TokenRequest(name="x", principal=name)),
        ):
            with pytest.raises(PermissionDenied) as refused:
                call()
            said.append(refused.value.message.replace(name, "NAME"))
        return said

    assert refusal("evil/ci") == refusal("evil/none") == refusal("root") == refusal("nobody")


def test_a_token_is_listed_with_its_last_use(server: Server) -> None:
    secret = server.token("lena", "reader", ("acme",))
    state = TokenAuthenticator(lambda text: tokens.identify(opened.catalog, text), anonymous_read=False)
    with closing(open_local(server.data)) as opened:
        asyncio.run(state.identify(f"Bearer {secret}"))
        tokens.record_use(opened.catalog, state.take_uses())
        assert state.take_uses() == {}
    (listed,) = (one for one in server.registry().tokens.list().items if one.principal == "lena")
    assert listed.last_used_at is not None
    assert listed.last_used_at >= listed.created_at


def test_a_group_gives_its_members_its_rights(server: Server) -> None:
    root = server.registry()
    theirs = new_user(server, "gil")
    root.principals.create_group("ml-team")
    root.grants.set_member("acme", MemberChange(group="ml-team", role="viewer"))
    with pytest.raises(NotFound):
        theirs.adapters.get(TONE)

    root.principals.set_membership("ml-team", "gil", True)
    assert theirs.adapters.get(TONE).name == TONE
    assert [one.name for one in theirs.principals.groups().items] == ["ml-team"]
    root.principals.set_membership("ml-team", "gil", False)
    with pytest.raises(NotFound):
        theirs.adapters.get(TONE)
    root.principals.set_membership("ml-team", "gil", True)
    root.principals.delete_group("ml-team")
    with pytest.raises(NotFound):
        theirs.adapters.get(TONE)


def test_a_disabled_user_has_no_access_until_enabled_again(server: Server) -> None:
    root, theirs = server.registry(), new_user(server, "dora", acme="viewer")
    assert theirs.adapters.get(TONE).name == TONE

    root.principals.set_disabled("dora", True)
    with pytest.raises(Unauthenticated, match="disabled"):
        theirs.adapters.get(TONE)
    with pytest.raises(Conflict, match="never reused"):
        root.principals.create("user", "dora")
    with pytest.raises(Conflict, match="disabled"):
        root.tokens.create(TokenRequest(name="more", principal="dora"))
    with pytest.raises(Conflict, match="disabled"):
        root.tokens.create(TokenRequest(name="dora", role="admin", namespaces=("*",)))
    root.principals.set_disabled("dora", False)
    assert theirs.adapters.get(TONE).name == TONE


def test_the_last_administrator_cannot_be_removed(server: Server) -> None:
    root = server.registry()

    with pytest.raises(Conflict, match="no administrator left"):
        root.principals.set_disabled("root", True)
    (grant,) = (one for one in root.grants.list(principal="root").items if one.permission == "admin")
    with pytest.raises(Conflict, match="no administrator left"):
        root.grants.remove(grant.id)
    assert root.about().role == "admin"


def test_a_namespace_keeps_an_owner_unless_an_administrator_removes_the_last(server: Server) -> None:
    root, opal = server.registry(), new_user(server, "opal", mine="owner")
    root.principals.create("service-account", "mine/ci")
    root.grants.set_member("mine", MemberChange(principal="mine/ci", role="owner"))
    leave = MemberChange(principal="opal", role=None)
    (grant,) = opal.grants.list(principal="opal").items

    with pytest.raises(Conflict, match="no owner left"):
        opal.grants.set_member("mine", MemberChange(principal="opal", role="viewer"))
    with pytest.raises(Conflict, match="no owner left"):
        opal.grants.set_member("mine", leave)
    with pytest.raises(Conflict, match="no owner left"):
        opal.grants.remove(grant.id)
    new_user(server, "odil", mine="owner")
    root.principals.set_disabled("odil", True)
    with pytest.raises(Conflict, match="no owner left"):
        opal.grants.set_member("mine", leave)
    root.grants.set_member("mine", leave)
    assert "opal" not in {one.principal for one in root.grants.members("mine").members}


@pytest.mark.parametrize("other", ["another owner", "a group of owners", "an owner of more namespaces"])
def test_an_owner_may_leave_if_others_remain(server: Server, other: str) -> None:
    root, place = server.registry(), f"left-{other.count('o')}-{len(other)}"
    first, second = f"{place}-first", f"{place}-second"
    theirs = new_user(server, first, **{place: "owner"})
    root.principals.create("user", second)
    match other:
        case "another owner":
            theirs.grants.set_member(place, MemberChange(principal=second, role="owner"))
        case "a group of owners":
            root.principals.create_group(place)
            root.principals.set_membership(place, second, True)
            theirs.grants.set_member(place, MemberChange(group=place, role="owner"))
        case _:
            root.grants.add(GrantRequest(principal=second, permission="owner", resource=f"{place}*"))

    left = theirs.grants.set_member(place, MemberChange(principal=first, role=None))

    assert first not in {one.principal for one in left.members}


def test_a_token_cannot_create_one_with_more_rights(server: Server) -> None:
    root = server.registry()
    theirs = new_user(server, "tess", acme="owner")
    narrow = theirs.tokens.create(TokenRequest(name="ci", principal="tess", resources=("acme/tone",)))
    assert (narrow.principal, narrow.name) == ("tess", "ci")
    assert narrow.expires_at is not None

    with pytest.raises(Conflict, match="choose another name"):
        theirs.tokens.create(TokenRequest(name="ci", principal="tess"))
    with pytest.raises(PermissionDenied, match="limited"):
        server.registry(narrow.secret).tokens.create(TokenRequest(name="more", principal="tess"))
    longer = theirs.tokens.create(TokenRequest(name="long", principal="tess", days=365))
    (in_use,) = (one for one in theirs.tokens.list().items if one.name == "laptop")
    assert longer.expires_at == in_use.expires_at
    with pytest.raises(PermissionDenied):
        theirs.tokens.create(TokenRequest(name="tess", role="reader", namespaces=("evil",)))
    with pytest.raises(Invalid, match="neither a role nor an action"):
        theirs.tokens.create(TokenRequest(name="odd", principal="tess", permissions=("fly",)))
    other = root.tokens.create(TokenRequest(name="other", role="reader", namespaces=("evil",)))
    with pytest.raises(NotFound, match="no valid token"):
        theirs.tokens.revoke(other.id)
    limited = server.registry(narrow.secret)
    with pytest.raises(PermissionDenied, match="revoke only themselves"):
        limited.tokens.revoke(longer.id)
    limited.tokens.revoke(narrow.id)
    with pytest.raises(Unauthenticated):
        limited.about()
    theirs.tokens.revoke(longer.id)


def test_a_refusal_names_the_limit_of_the_token(server: Server) -> None:
    request = TokenRequest(name="of one adapter", principal="root", resources=("acme/tone",))
    limited = server.registry(server.registry().tokens.create(request).secret)
    policy = PolicyRequest(scope="acme", text='alias: prod\nrequire:\n  - state() == "active"\n')
    order = JobOrder(kind="combine", task={"inputs": ["acme/tone@1", "acme/tone@1"], "to": "acme/both"})

    with pytest.raises(PermissionDenied, match="with this token, which is limited; use one without limits"):
        limited.principals.create_group("team")
    with pytest.raises(PermissionDenied, match=r"the token does not allow policy\.manage on acme"):
        limited.policies.set(policy)
    with pytest.raises(PermissionDenied, match=r"the token does not allow job\.run on acme"):
        limited.jobs.submit(order)


def test_a_reader_of_some_adapters_sees_only_those(server: Server) -> None:
    theirs = new_user(server, "nina")
    server.registry().grants.add(GrantRequest(principal="nina", permission="viewer", resource="acme/to*"))

    assert [str(one.name) for one in theirs.adapters.list().items] == ["acme/tone"]
    assert {str(one.name) for one in theirs.versions.search("").items} == {"acme/tone"}
    with pytest.raises(NotFound):
        theirs.adapters.get(AdapterName.parse("acme/voice"))
    with pytest.raises(PermissionDenied):
        theirs.grants.members("acme")


def test_grants_of_others_are_not_visible(server: Server) -> None:
    theirs = new_user(server, "nosy", acme="maintainer")
    (own,) = theirs.grants.list(principal="nosy").items
    assert own.permission == "maintainer"

    for call in (
        theirs.grants.list,
        lambda: theirs.grants.list("acme"),
        lambda: theirs.grants.list(principal="root"),
        lambda: theirs.grants.members("evil"),
        lambda: theirs.grants.explain(AccessQuery(principal="root", action="read", ref="acme")),
        lambda: theirs.principals.create_group("x"),
        lambda: theirs.principals.set_disabled("root", True),
        lambda: theirs.principals.set_disabled("nobody-there", True),
        lambda: theirs.grants.set_accountable("acme", "nosy"),
    ):
        with pytest.raises(PermissionDenied):
            call()
    with pytest.raises(NotFound):
        theirs.grants.remove(1)
    with pytest.raises(PermissionDenied):
        theirs.grants.remove(own.id)
    assert [one.name for one in theirs.principals.list().items] == ["nosy"]


def test_names_of_principals_and_groups_differ_in_more_than_case(server: Server) -> None:
    for path, fields in (("/api/v1/principals", {"kind": "user"}), ("/api/v1/groups", {})):
        assert server.call("POST", path, {**fields, "name": "pia"}).status == 201
        twin, again = (server.call("POST", path, {**fields, "name": name}) for name in ("Pia", "pia"))
        assert_problem(twin, 409, "conflict")
        assert "differs only in case from pia" in twin.json["detail"]
        assert_problem(again, 409, "conflict")
        assert "pia already exists" in again.json["detail"]
    token = {"name": "PIA", "role": "viewer", "namespaces": ["acme"]}
    assert_problem(server.call("POST", "/api/v1/tokens", token), 409, "conflict")


@pytest.mark.parametrize("name", ["server", "Server", "mirror", "local", "anonymous"])
def test_no_principal_can_have_a_reserved_author_name(server: Server, name: str) -> None:
    user = {"kind": "user", "name": name}
    assert_problem(server.call("POST", "/api/v1/principals", user), 400, "invalid")
    token = {"name": name, "role": "viewer", "namespaces": ["acme"]}
    assert_problem(server.call("POST", "/api/v1/tokens", token), 400, "invalid")
    assert name not in {one["name"] for one in server.call("GET", "/api/v1/principals").json["items"]}
