"""Lifecycle states over HTTP: changed only from the state that the caller saw; withheld files are refused
with the reason.
"""

from __future__ import annotations

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import StateChange, VersionInfo
from adaptry_api.testing import Server, assert_problem

WEIGHTS = "adapter_model.safetensors"
YANK = {"state": "yanked", "reason": "wrong data"}


@pytest.fixture
def version(registry: HttpRegistry, tone: Adapter) -> VersionInfo:
    return push(registry, tone, "acme/tone").version


def address(version: VersionInfo) -> str:
    return f"/api/v1/adapters/acme/tone/revisions/{version.digest}"


def test_a_state_is_put_from_the_generation_that_was_seen(server: Server, version: VersionInfo) -> None:
    at = f"{address(version)}/state"
    assert_problem(server.call("PUT", at, YANK), 428, "precondition_required")
    assert_problem(server.call("PUT", at, YANK, headers={"If-None-Match": "*"}), 428, "precondition_required")
    done = server.call("PUT", at, YANK, headers={"If-Match": '"0"'})
    assert (done.status, done.headers["ETag"], done.json["state"]) == (200, '"1"', "yanked")
    assert done.json["last_state_change"]["reason"] == "wrong data"
    again = server.call("PUT", at, YANK, headers={"If-Match": '"0"'})
    assert (again.status, again.json) == (200, done.json)
    revoke = {"state": "revoked", "reason": "leaked"}
    assert_problem(server.call("PUT", at, revoke, headers={"If-Match": '"0"'}), 409, "conflict")


@pytest.mark.parametrize(
    "body",
    [
        *({"state": "gone", "reason": "leaked"}, {"state": "yanked"}, {"state": "yanked", "reason": "no"}),
        {"state": "yanked", "reason": "x" * 1025},
        {"state": "active", "reason": "it is fine", "successor": "acme/tone@1"},
        {"state": "yanked", "reason": "leaked", "successor": "no ref"},
        {"state": "yanked", "reason": "leaked", "by": "me"},
    ],
)
def test_a_malformed_state_change_is_refused(
    server: Server, version: VersionInfo, body: dict[str, str]
) -> None:
    answer = server.call("PUT", f"{address(version)}/state", body, headers={"If-Match": '"0"'})
    assert_problem(answer, 422, "invalid")


def test_withheld_files_are_a_403_with_the_reason(
    server: Server, registry: HttpRegistry, version: VersionInfo
) -> None:
    reader = server.token("ron", "reader", ("acme",))
    file = f"{address(version)}/files/{WEIGHTS}"
    assert server.call("GET", file, token=reader).status == 200
    change_state(registry, Ref.parse("acme/tone@1"), StateChange(state="revoked", reason="leaks addresses"))
    refused = server.call("GET", file, token=reader)
    assert_problem(refused, 403, "withdrawn")
    assert "acme/tone@1 is revoked: leaks addresses" in refused.json["detail"]
    assert server.call("GET", file).status == 200  # an administrator
