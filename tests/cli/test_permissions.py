"""Users and permissions on the command line, in an embedded registry."""

from __future__ import annotations


def test_a_member_may_move_every_alias_but_prod_by_one_line(run, answer) -> None:
    run("create", "acme/tone")
    run("user", "create", "bob")
    run("member", "set", "acme", "bob", "--role", "viewer")
    added = run("grant", "add", "bob", "alias.move", "acme", "--if", "alias!=prod").stderr

    assert added == "grant 2: bob has alias.move on acme if alias!=prod\n"
    explained = run("access", "explain", "bob", "alias.move", "acme/tone@prod").stdout
    assert explained.startswith("no: bob alias.move acme/tone@prod: a condition does not hold")
    assert answer("access", "explain", "bob", "alias.move", "acme/tone@stage")["is_allowed"]
    assert [one["permission"] for one in answer("grant", "ls", "--principal", "bob")] == [
        "viewer",
        "alias.move",
    ]
    run("member", "rm", "acme", "bob")
    assert answer("member", "ls", "acme")["members"] == []
    assert "read" in run("access", "explain", "bob", "alias.move", "acme/tone@stage").stdout


def test_a_service_accounts_token_is_shown_once_with_its_limits_listed(run, answer) -> None:
    run("create", "acme/tone")
    run("service-account", "create", "acme/ci")
    run("member", "set", "acme", "acme/ci", "--role", "contributor")
    made = answer("token", "create", "pipeline", "--for", "acme/ci", "--only", "push", "--on", "acme/tone")

    (listed,) = answer("token", "ls")
    assert made["token"].endswith(listed["last_four"])
    assert (made["id"], made["expires_at"]) == (listed["id"], listed["expires_at"])
    assert (listed["principal"], listed["permissions"], listed["resources"]) == (
        "acme/ci",
        ["push"],
        ["acme/tone"],
    )
    assert "on acme/tone" in run("token", "ls").stdout


def test_a_token_that_creates_its_user_is_printed_with_a_note(run) -> None:
    run("create", "acme/tone")
    first = run("token", "create", "maria", "--namespace", "acme")
    again = run("token", "create", "maria", "--namespace", "acme")
    shorter = run("token", "create", "mari", "--namespace", "acme")
    worker = run("token", "create", "gpu-1", "--role", "worker", "--namespace", "acme")

    assert "note: maria is a new user, created with this token" in first.stderr
    assert "note" not in again.stderr
    assert "note: mari is a new user" in shorter.stderr
    assert "note: gpu-1 is a new worker" in worker.stderr


def test_groups_users_and_the_accountable_owner_are_listed(run, answer) -> None:
    run("create", "acme/tone")
    run("user", "create", "ann")
    run("group", "create", "ml-team")
    run("group", "add", "ml-team", "ann")
    run("member", "set", "acme", "ml-team", "--group", "--role", "maintainer")
    run("member", "accountable", "acme", "ann")

    assert answer("group", "ls")[0]["members"] == ["ann"]
    shown = run("member", "ls", "acme")
    assert "group ml-team" in shown.stdout
    assert "accountable for acme: ann" in shown.stderr
    assert answer("access", "explain", "ann", "alias.move", "acme")["reason"] == (
        "maintainer on acme (group ml-team)"
    )
    run("user", "disable", "ann")
    assert answer("user", "ls")[0]["disabled_at"]
    assert not answer("access", "explain", "ann", "read", "acme")["is_allowed"]


def test_invalid_permissions_are_refused_with_valid_ones(run) -> None:
    run("create", "acme/tone")
    run("user", "create", "bob")

    assert "--for NAME" in run("token", "create", "x", code=2).stderr
    assert (
        "a role has no conditions"
        in run("grant", "add", "bob", "owner", "acme", "--if", "alias!=prod", code=2).stderr
    )
    assert "no user" in run("member", "set", "acme", "nobody", "--role", "viewer", code=3).stderr
    assert "not a resource" in run("grant", "add", "bob", "read", "a/b/c", code=2).stderr


def test_access_is_recovered_on_the_registrys_machine(run, answer) -> None:
    run("create", "acme/tone")

    assert run("admin", "recover", "root").stdout.startswith("adr_pat_")
    (granted,) = answer("grant", "ls")
    assert (granted["principal"], granted["permission"], granted["resource"]) == ("root", "admin", "*")
    assert "access.recovered" in run("events", "--after", "0").stdout
