"""Webhooks on the command line, with a server that sends them."""

from __future__ import annotations

from pathlib import Path

import pytest
from standardwebhooks import Webhook

from adaptry.testing.receivers import receiving
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server


def test_a_webhook_is_added_tried_rotated_and_removed(
    run, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServerSettings(data=tmp_path / "served", allow_outgoing=("127.0.0.0/8",))
    with running_server(settings) as server, receiving() as receiver:
        monkeypatch.setenv("ADAPTRY_URL", server.url)
        monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)

        added = run("webhook", "add", "acme", receiver.url, "--event", "alias.*")
        secret = added.stdout.strip()
        assert "is not shown again" in added.stderr
        assert "warning: 127.0.0.1 is not a public address" in added.stderr
        assert "--allow-outgoing" in added.stderr
        assert "warning" not in run("webhook", "add", "acme", "https://example.org/hook").stderr
        run("webhook", "rm", "2")
        tested = run("webhook", "test", "1")
        assert "delivered in" in tested.stderr
        (message,) = receiver.messages
        assert message.id == tested.stdout.strip()
        Webhook(secret).verify(message.body, message.headers)
        assert secret not in run("webhook", "show", "1").output + run("webhook", "ls").output

        receiver.status = 500
        assert "the receiver answered 500" in run("webhook", "test", "1", code=1).stderr
        found = answer("webhook", "deliveries", "1", "--limit", "1")
        assert [(one["state"], one["status"]) for one in found] == [("failed", 500)]
        assert "1 failure in a row" in run("webhook", "ls", "acme").stdout
        receiver.status = 200
        run("webhook", "redeliver", "1", found[0]["message"])
        assert receiver.wait_for(3)[2].id == found[0]["message"]

        assert run("webhook", "rotate", "1", "--overlap", "2").stdout.strip() != secret
        assert answer("webhook", "show", "1")["old_secret_until"] is not None
        assert answer("webhook", "disable", "1")["disabled_reason"] == "disabled by root"
        assert "is disabled" in run("webhook", "test", "1", code=4).stderr
        assert answer("webhook", "enable", "1")["disabled_at"] is None
        run("webhook", "rm", "1")
        assert "no webhook 1" in run("webhook", "show", "1", code=3).stderr


def test_an_unknown_kind_of_event_is_refused(run) -> None:
    run("create", "acme/tone")
    assert (
        "kinds" in run("webhook", "add", "acme", "https://ci.example.com", "--event", "All!", code=2).stderr
    )
    assert "not a URL" in run("webhook", "add", "acme", "ci.example.com", code=2).stderr
