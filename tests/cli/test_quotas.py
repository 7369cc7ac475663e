"""Quotas and invitations on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.core import credentials
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server


def test_limits_are_set_shown_and_removed(run, answer) -> None:
    run("create", "acme/tone")
    run("user", "create", "ann")
    run("quota", "set", "*", "--principal", "--requests", "600")
    run("quota", "set", "acme", "--bytes", "2TB")
    run("quota", "set", "acme", "--versions", "5")  # the other limit stays

    shown = answer("quota", "show", "acme")
    assert (shown["bytes"], shown["versions"], shown["own"]) == (2 * 10**12, 5, ["bytes", "versions"])
    assert "0 B of 2.0 TB" in run("quota", "show", "acme").stdout
    assert answer("quota", "show", "ann", "--principal")["requests"] == 600
    run("quota", "set", "ann", "--principal", "--requests", "unlimited")
    assert "unlimited" in run("quota", "show", "ann", "--principal").stdout
    assert [one["name"] for one in answer("quota", "ls")] == ["acme", "*", "ann"]
    assert "every principal" in run("quota", "ls").stdout
    run("quota", "rm", "acme")
    assert answer("quota", "show", "acme")["own"] == []


def test_an_invalid_limit_is_refused(run) -> None:
    run("create", "acme/tone")

    assert "--bytes" in run("quota", "set", "acme", code=2).stderr
    assert "not a size" in run("quota", "set", "acme", "--bytes", "much", code=2).stderr
    assert "no user" in run("quota", "set", "nobody", "--principal", "--requests", "1", code=3).stderr
    assert "no quota is set" in run("quota", "rm", "acme", code=3).stderr


def test_a_push_beyond_the_quota_is_a_refused_push(run, out: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ADAPTRY_HOME", str(tmp_path / "home"))
    with running_server(ServerSettings(data=tmp_path / "served")) as server:
        monkeypatch.setenv("ADAPTRY_URL", server.url)
        monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
        run("quota", "set", "acme", "--bytes", "1")
        assert "adaptry quota set acme --bytes SIZE" in run("push", "./out", "acme/tone", code=1).stderr


def test_an_invited_user_logs_in_with_the_code(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTRY_HOME", str(tmp_path / "home"))
    with running_server(ServerSettings(data=tmp_path / "served")) as server:
        monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
        invited = run("user", "invite", "ann", "--registry", server.url)
        assert "it works once" in invited.stderr
        monkeypatch.delenv("ADAPTRY_TOKEN")

        logged_in = run("login", server.url, stdin=invited.stdout)
        assert logged_in.stdout == "ann\n"
        token = credentials.token_for(server.url)
        assert token is not None
        assert token.startswith("adr_pat_")
        assert "used or expired" in run("login", server.url, stdin=invited.stdout, code=5).stderr
