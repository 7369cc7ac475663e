"""The audit log over HTTP: denied requests, its readers, and a check that every changing route is
recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adaptry.core.errors import NotFound, PermissionDenied
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.refs import AdapterName
from adaptry.operations.audit_verification import verify_log
from adaptry.registry.audit_actions import ACTIONS
from adaptry.registry.audit_log import AuditEntry, AuditFilter
from adaptry.registry.records import AdapterEdit
from adaptry_api.denials import MAX_DENIALS, MAX_DENIALS_OF_ONE, WINDOW, DenialRecorder
from adaptry_api.pages.settings.routes import SECTIONS
from adaptry_api.route_actions import FORM_ACTIONS, ROUTE_ACTIONS
from adaptry_api.routes import all_routes
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server, until

from .hub.uploads import XetUpload

TONE = AdapterName.parse("acme/tone")
NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(ServerSettings(data=tmp_path_factory.mktemp("audit"))) as server:
        server.registry().adapters.create(TONE, AdapterEdit())
        yield server


def denied_by(server: Server, name: str, count: int = 0) -> tuple[AuditEntry, ...]:
    """The denied requests of a caller, as soon as there are that many: a request is recorded after its
    response.
    """
    denied = AuditFilter(actor=name, denied=True)
    return until(lambda: server.registry().audit.list(denied).items, lambda found: len(found) >= count)


def test_every_changing_route_has_an_action() -> None:
    changing = {
        f"{method} {route.path}"
        for router in all_routes()
        for route in router.routes
        for method in getattr(route, "methods", ())
        if method not in ("GET", "HEAD", "OPTIONS")
    }
    assert set(ROUTE_ACTIONS) == changing
    assert set(ROUTE_ACTIONS.values()) <= set(ACTIONS)


def test_every_form_of_a_page_has_an_action() -> None:
    for section in SECTIONS:
        assert set(section.actions) == set(FORM_ACTIONS.get(section.address, ())), section.address
    assert {action for forms in FORM_ACTIONS.values() for action in forms.values()} <= {*ACTIONS}


def test_a_denied_form_is_recorded_under_the_action_that_it_names(server: Server) -> None:
    token = server.token("pia", "contributor", ("acme",))
    body = b"do=set&who=pia&kind=principal&role=owner"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    answer = server.call("POST", "/-/settings/namespaces/acme/members", body, token=token, headers=headers)

    assert answer.status == 403, answer.body
    (entry,) = denied_by(server, "pia", 1)
    assert (entry.action, entry.what, entry.namespace) == ("member.set", "acme", "acme")


def test_a_denied_change_is_recorded_with_its_reason_and_request(server: Server) -> None:
    token = server.token("ron", "reader", ("acme",))
    answer = server.call("PUT", "/api/v1/adapters/acme/tone/aliases/prod", {}, token=token)
    refused = server.call("DELETE", "/api/v1/adapters/acme/tone", token=token)

    assert (answer.status, refused.status) == (428, 403)
    (entry,) = denied_by(server, "ron", 1)
    assert (entry.action, entry.what, entry.namespace) == ("adapter.delete", "acme/tone", "acme")
    assert entry.request == refused.headers["Request-Id"]
    assert entry.reason == refused.json["detail"]
    assert entry.limit == "reader on acme"


def test_a_denied_commit_of_a_hub_client_is_recorded(server: Server) -> None:
    token = server.token("hub", "reader", ("acme",))
    answer = server.call("POST", "/api/models/acme/tone/branch/draft", {}, token=token)

    assert answer.status == 403
    (entry,) = denied_by(server, "hub", 1)
    assert (entry.action, entry.what) == ("branch.create", "acme/tone@draft")


def test_a_change_without_a_valid_token_is_recorded_and_a_read_without_a_token_is_not(server: Server) -> None:
    before = len(denied_by(server, ANONYMOUS.name))
    for method, token in (
        ("GET", None),
        ("DELETE", "adr_pat_nonsense"),
        ("DELETE", None),
        ("GET", "nonsense"),
    ):
        assert server.call(method, "/api/v1/adapters/acme/tone", token=token).status == 401

    found = denied_by(server, ANONYMOUS.name, before + 3)
    assert len(found) - before == 3
    assert "nonsense" not in "".join(entry.line for entry in found)


def test_a_revoked_token_is_recorded_although_a_hub_client_gets_the_reason_with_status_200(
    server: Server,
) -> None:
    before = len(denied_by(server, ANONYMOUS.name))
    token = server.token("lea", "writer", ("acme",))
    upload = XetUpload.start(server, token=token)
    assert server.call("POST", "/api/v1/tokens/revoke", {"token": token}, token=None).status == 202
    assert upload.post("/v2/shards", b"").status == 200

    entry = denied_by(server, ANONYMOUS.name, before + 1)[0]
    assert (entry.action, "unknown or revoked" in (entry.reason or "")) == ("upload.open", True)


def test_entries_about_other_namespaces_are_absent_for_an_owner(server: Server) -> None:
    owner = server.registry(server.token("olga", "owner", ("other",)))
    assert {entry.namespace for entry in owner.audit.list(AuditFilter()).items} == {"other"}
    assert owner.audit.list(AuditFilter(resource="acme/tone")).items == ()
    with pytest.raises(NotFound):
        owner.audit.prove_inclusion(0, 1)
    reader = server.registry(server.token("rita", "reader", ("acme",)))
    with pytest.raises(PermissionDenied):
        reader.audit.checkpoint()


def test_a_request_for_a_hidden_adapter_is_answered_as_absent_and_recorded(server: Server) -> None:
    token = server.token("eve", "writer", ("evil",))
    for method in ("GET", "DELETE"):
        absent, hidden = (
            server.call(method, f"/api/v1/adapters/acme/{name}", token=token) for name in ("none", "tone")
        )
        assert (hidden.status, absent.status) == (404, 404)
        assert hidden.json["detail"].replace("tone", "none") == absent.json["detail"]

    found = denied_by(server, "eve", 2)
    assert [(entry.action, entry.what) for entry in found] == [
        ("adapter.delete", "acme/tone"),
        ("request.make", "acme/tone"),
    ]
    assert "is private" in (found[0].reason or "")


def test_the_whole_log_is_sealed_and_verified_over_http(server: Server) -> None:
    admin = server.registry()
    older = admin.audit.begin_export(AuditFilter()).note
    admin.adapters.edit(TONE, AdapterEdit(description="later"))
    admin.audit.begin_export(AuditFilter(action="adapter.*"))

    report = verify_log(admin.audit, None, older)
    assert report.problems == ()
    assert report.older is not None
    assert report.checkpoint is not None
    assert report.checkpoint > report.older


def scope(path: str = "/api/v1/adapters/acme/tone", **state: Any) -> dict[str, Any]:
    params = {"namespace": "acme", "name": "tone"}
    return {"method": "DELETE", "path": path, "headers": [], "path_params": params, "state": state}


def test_a_flood_of_denied_requests_is_counted_and_leaves_room_for_others(tmp_path: Path) -> None:
    now = NOW
    recorder = DenialRecorder(lambda: now)
    for _ in range(1000):
        recorder.note(scope(identity=Identity("eve")), 403)
    for number in range(100):
        recorder.note(scope(identity=Identity(f"user-{number}")), 403)
    first = recorder.take()
    now += WINDOW + timedelta(seconds=1)
    recorder.note(scope(identity=Identity("eve")), 403)
    second = recorder.take()

    assert len(first) == MAX_DENIALS
    assert [one["actor"] for one in first].count("eve") == MAX_DENIALS_OF_ONE
    summary, again = second
    assert (summary["action"], again["actor"]) == ("audit.suppress", "eve")
    assert f'"requests": {1100 - MAX_DENIALS}' in summary["detail"]
    assert '"eve request.make": 990' in summary["detail"]
    assert recorder.take() == []


def test_a_request_that_is_not_denied_is_not_recorded() -> None:
    recorder = DenialRecorder()
    for status in (200, 404, 409, 500):
        recorder.note(scope(identity=Identity("eve")), status)
    assert recorder.take() == []
