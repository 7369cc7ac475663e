"""Access decisions: grants, conditions, and the limits of tokens, all decided by one pure function."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from adaptry.core.access.actions import ACTIONS, Action
from adaptry.core.access.conditions import Condition, Facts
from adaptry.core.access.decision import Target, decide
from adaptry.core.access.delegation import require_delegation
from adaptry.core.access.grants import Grant, Limit, check_grant
from adaptry.core.access.resources import Resource
from adaptry.core.access.roles import MEMBER_ROLES, ROLES
from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
TONE = AdapterName.parse("acme/tone")


def grant(permission: str, resource: str, *conditions: str) -> Grant:
    return check_grant(Grant(permission, Resource.parse(resource), tuple(map(Condition.parse, conditions))))


def is_allowed(
    grants: list[Grant], action: Action, ref: str = "acme/tone", limit: Limit | None = None, **facts: object
) -> bool:
    namespace, _, name = ref.partition("/")
    known = Facts(**facts)  # type: ignore[arg-type]  # those of `Facts`
    return decide(grants, limit, action, Target(namespace, name or None, known)).is_allowed


def test_every_alias_but_prod_is_one_grant() -> None:
    grants = [grant("viewer", "acme"), grant("alias.move", "acme", "alias!=prod")]

    assert is_allowed(grants, "alias.move", alias="stage")
    assert not is_allowed(grants, "alias.move", alias="prod")
    assert not is_allowed(grants, "alias.move", alias="PROD")
    assert not is_allowed(grants, "alias.move")
    assert not is_allowed(grants, "push")


@pytest.mark.parametrize(
    ("condition", "facts", "holds"),
    [
        ("alias=stage,canary", {"alias": "canary"}, True),
        ("alias=stage,canary", {"alias": "prod"}, False),
        ("state=deprecated", {"state": "deprecated"}, True),
        ("state!=revoked", {"state": "revoked"}, False),
        ("state!=revoked", {}, False),
        ("before=2026-12-01T12:00Z", {"now": NOON}, False),
        ("before=2026-12-01T13:30+01:00", {"now": NOON}, True),
        ("after=2026-12-01T12:00Z", {"now": NOON}, True),
        ("after=2026-12-02", {"now": NOON}, False),
        ("before=2027-01-01", {}, False),
    ],
)
def test_a_condition_is_never_met_by_missing_evidence(
    condition: str, facts: dict[str, object], holds: bool
) -> None:
    parsed = Condition.parse(condition)
    assert parsed.holds(Facts(**facts)) == holds  # type: ignore[arg-type]  # those of `Facts`
    assert Condition.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("permission", "resource", "conditions"),
    [
        ("read", "acme", ["alias!=prod"]),
        ("read", "acme", ["before=2027-01-01"]),
        ("maintainer", "acme", ["alias!=prod"]),
        ("push", "acme", ["alias!=prod"]),
        ("alias.move", "acme", ["state=revoked"]),
        ("state.set", "acme", ["state=gone"]),
        ("alias.move", "acme", ["alias~prod"]),
        ("alias.move", "acme", ["alias="]),
        ("alias.move", "acme", ["before=soon"]),
        ("fly", "acme", []),
        ("read", "acme/to*ne", []),
        ("read", "acme/", []),
        ("read", "", []),
        ("read", "a/b/c", []),
    ],
)
def test_a_grant_with_an_ambiguous_text_is_refused(
    permission: str, resource: str, conditions: list[str]
) -> None:
    with pytest.raises(Invalid):
        grant(permission, resource, *conditions)


def test_a_role_with_a_condition_is_refused_because_it_includes_read() -> None:
    with pytest.raises(Invalid, match="grant single actions instead of maintainer"):
        grant("maintainer", "acme", "alias!=prod")


def test_all_conditions_of_a_grant_must_hold() -> None:
    grants = [grant("viewer", "acme"), grant("alias.move", "acme", "alias!=prod", "before=2026-12-01T12:00Z")]

    assert is_allowed(grants, "alias.move", alias="stage", now=NOON.replace(hour=11))
    assert not is_allowed(grants, "alias.move", alias="prod", now=NOON.replace(hour=11))
    assert not is_allowed(grants, "alias.move", alias="stage", now=NOON)


def test_a_grant_on_a_namespace_applies_to_no_other_namespace() -> None:
    grants = [grant("maintainer", "acme"), grant("viewer", "team-*")]

    assert is_allowed(grants, "push", "acme/tone")
    assert is_allowed(grants, "read", "team-7/tone")
    assert not is_allowed(grants, "push", "acme-2/tone")
    assert not is_allowed(grants, "read", "evil/tone")


def test_a_grant_on_adapters_by_name_applies_to_no_other_adapters() -> None:
    grants = [grant("maintainer", "acme/tone-*"), grant("viewer", "acme/voice")]

    assert is_allowed(grants, "push", "acme/tone-2")
    assert is_allowed(grants, "read", "acme/voice")
    assert not is_allowed(grants, "push", "acme/voice")
    assert not is_allowed(grants, "read", "acme/tone")
    assert not is_allowed(grants, "read", "acme")
    assert not is_allowed(grants, "job.run", "acme")


def test_callers_cannot_change_what_is_hidden_from_them() -> None:
    decision = decide([grant("push", "acme")], None, "push", Target("acme", "tone"))

    assert not decision.is_allowed
    assert "read" in decision.reason


def test_a_token_can_only_limit_rights() -> None:
    grants = [grant("owner", "acme")]
    limit = Limit(("alias.move",), (Resource.parse("acme/tone"),))

    assert is_allowed(grants, "alias.move", "acme/tone", limit)
    assert is_allowed(grants, "read", "acme/tone", limit)
    assert not is_allowed(grants, "push", "acme/tone", limit)
    assert not is_allowed(grants, "alias.move", "acme/voice", limit)
    assert not is_allowed([], "read", "acme/tone", Limit(("admin",), (Resource.parse("*"),)))


def test_a_narrowed_token_of_an_administrator_has_no_administrators_rights() -> None:
    root = Identity("root", (grant("admin", "*"),), Limit(None, (Resource.parse("acme"),)))

    assert not root.may_administer
    assert not root.reads_everything
    assert root.may("member.manage", TONE)
    assert not root.may_read(AdapterName.parse("evil/tone"), "private")
    assert not Identity("root", (grant("admin", "*"),), Limit(("owner",), None)).may_administer


def test_only_a_registry_administrator_may_do_everything() -> None:
    assert all(LOCAL.may_in(action, "anything") for action in ACTIONS)
    acme = Identity.with_role("ann", "admin", ("acme", "?*"))
    assert not acme.may_administer
    assert not acme.may("member.manage", TONE)


def test_each_member_role_includes_the_weaker_ones() -> None:
    for weaker, stronger in pairwise(MEMBER_ROLES):
        assert ROLES[weaker] < ROLES[stronger]
    assert "admin" not in ROLES["owner"]


@pytest.mark.parametrize(
    ("permission", "resource"), [("admin", "acme"), ("owner", "evil"), ("viewer", "*"), ("viewer", "ac*")]
)
def test_an_owner_cannot_grant_rights_they_lack(permission: str, resource: str) -> None:
    owner = Identity.with_role("olga", "owner", ("acme",))
    require_delegation(owner, grant("owner", "acme"), Facts())
    require_delegation(owner, grant("worker", "acme/tone"), Facts())

    with pytest.raises(PermissionDenied):
        require_delegation(owner, grant(permission, resource), Facts())


def test_an_owner_of_many_namespaces_grants_in_one_at_a_time() -> None:
    owner = Identity.with_role("olga", "owner", ("team-*",))
    require_delegation(owner, grant("viewer", "team-7"), Facts())

    with pytest.raises(PermissionDenied, match="more than one namespace"):
        require_delegation(owner, grant("viewer", "team-*"), Facts())


def test_a_maintainer_cannot_grant_rights() -> None:
    with pytest.raises(PermissionDenied, match=r"member\.manage"):
        require_delegation(
            Identity.with_role("max", "maintainer", ("acme",)), grant("viewer", "acme"), Facts()
        )
